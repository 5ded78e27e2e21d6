/**
 * An answer that had begun and cannot go on. The HTTP adapter writes the message at the end of what it has sent, so it
 * tells nothing of the cause, which is for the one who reads the server's output.
 */
export class BrokenOff extends Error {
  override readonly name = "BrokenOff";

  constructor(cause: unknown) {
    super("The server could not go on with this answer.", { cause });
  }
}
