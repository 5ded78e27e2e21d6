/** Keys of the langgraph.json format that describe how to build a container or check a file: nothing to do here. */
const WITHOUT_MEANING = new Set([
  "$schema",
  "api_version",
  "base_image",
  "dependencies",
  "docker_compose_file",
  "dockerfile_lines",
  "image_distro",
  "keep_pkg_tools",
  "node_version", // compared with the running version below
  "pip_config_file",
  "pip_installer",
  "python_version",
]);

/** Keys of the format that mean something, and that this server does not do. */
const NOT_SUPPORTED: Record<string, string> = {
  "auth.cache": "authentication is not cached",
  "auth.openapi": "security schemes are not added to the OpenAPI document",
  encryption: "custom encryption is not supported",
  "http.disable_ui": "there are no UI routes",
  "http.logging_headers": "requests are not logged",
  node_loader: "graphs are loaded by the built-in TypeScript loader",
  ui: "generative UI bundles are not supported yet",
  ui_config: "generative UI bundles are not supported yet",
};

/**
 * The sentence to warn with about a key the schema does not know; `undefined` for one that has no meaning
 * here. `key` is the dotted path, such as `http.app`.
 */
export function describeUnreadKey(key: string): string | undefined {
  if (WITHOUT_MEANING.has(key) || key.startsWith("_INTERNAL_")) return undefined;
  const reason = NOT_SUPPORTED[key];
  return reason === undefined
    ? `"${key}" is not a known option and has no effect`
    : `"${key}" has no effect: ${reason}`;
}

/** Warnings about keys that are valid and present, but without effect in this version. */
export function describeIneffective(file: Record<string, unknown>): string[] {
  const warnings: string[] = [];
  const checkpointer = file["checkpointer"];
  const ttl = isRecord(checkpointer) ? checkpointer["ttl"] : undefined;
  if (isRecord(ttl) && ttl["strategy"] !== undefined && ttl["default_ttl"] === undefined) {
    warnings.push(
      '"checkpointer.ttl.strategy" has no effect without "checkpointer.ttl.default_ttl"',
    );
  }
  const wanted = Number(file["node_version"]);
  const running = Number(process.versions.node.split(".")[0]);
  if (wanted > 0 && Math.floor(wanted) !== running) {
    warnings.push(
      `"node_version" asks for Node ${wanted}, but this is Node ${process.versions.node}`,
    );
  }
  return warnings;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
