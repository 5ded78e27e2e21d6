/** What every process answers. */
const PROBES = new Set(["/ok", "/info", "/live", "/ready", "/metrics"]);

type Fetch = (request: Request) => Response | Promise<Response>;

/** Answers only what tells about the process: it executes runs for those that other processes talk to. */
export function onlyProbes(fetch: Fetch): Fetch {
  return (request) => {
    if (PROBES.has(new URL(request.url).pathname)) return fetch(request);
    const detail = "This process executes runs (role worker); the API is served by others.";
    return Response.json({ detail, code: "not_found" }, { status: 404 });
  };
}
