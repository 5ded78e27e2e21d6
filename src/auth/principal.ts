/** Who sent a request, as the authentication handler said. The server owns it; a client cannot forge it. */
export interface Principal {
  identity: string;
  permissions: string[];
  /**
   * The whole object the handler returned, completed with what the SDK promises its handlers and graphs:
   * `identity`, `permissions`, `display_name` and `is_authenticated`.
   */
  user: Readonly<Record<string, unknown>> & {
    identity: string;
    permissions: string[];
    display_name: string;
    is_authenticated: boolean;
  };
}
