/**
 * Does `work` with a signal that is aborted after `timeoutMs`, or with `stopped`. Gives what it gives.
 *
 * Not `AbortSignal.any([stopped, AbortSignal.timeout(...)])`: Node 20 lets such a timeout be collected as garbage
 * while the request is under way, which then never ends.
 */
export async function withDeadline<T>(
  limit: { timeoutMs: number; stopped: AbortSignal },
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const { timeoutMs, stopped } = limit;
  const controller = new AbortController();
  const timeout = setTimeout(() => {
    controller.abort(new DOMException(`no answer within ${timeoutMs} ms`, "TimeoutError"));
  }, timeoutMs);
  const stop = (): void => controller.abort(stopped.reason);
  if (stopped.aborted) stop();
  stopped.addEventListener("abort", stop, { once: true });
  try {
    return await work(controller.signal);
  } finally {
    clearTimeout(timeout);
    stopped.removeEventListener("abort", stop);
  }
}
