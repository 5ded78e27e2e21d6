const NAME = /^(?<host>localhost|[\w-]+(?:\.[\w-]+)+|[\w-]+(?=:\d))(?<port>:\d+)?(?:\/[\w./-]*)?$/u;

/**
 * What an address without `http://` or `https://` was probably meant to be; `undefined` for what is no address, and
 * for what may hold a password.
 */
export function likelyUrl(value: string): string | undefined {
  const { host, port } = NAME.exec(value)?.groups ?? {};
  if (host === undefined) return undefined;
  const near = host === "localhost" || !host.includes(".") || /^[\d.]+$/u.test(host);
  return `${near || (port !== undefined && port !== ":443") ? "http" : "https"}://${value}`;
}

/** What is wrong with an address that should be on the web, with what was probably meant. */
export function describeNoUrl(value: string): string {
  const likely = likelyUrl(value);
  const hint = likely === undefined ? "" : `, such as ${likely}`;
  return `must be a URL that begins with http:// or https://${hint}`;
}

/** Langfuse's base address, also where that of its API or its OTLP endpoint was given; without a slash at the end. */
export function toLangfuseBase(host: string): string {
  return host
    .replace(/\/+$/u, "")
    .replace(/\/api\/public(?:\/otel(?:\/v1(?:\/traces)?)?)?$/u, "")
    .replace(/\/+$/u, "");
}
