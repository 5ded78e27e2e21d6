import type { ServeOptions } from "./options.ts";
import { serve } from "./serve.ts";
import { closeOnSignal } from "./shutdown.ts";

/** `aegra start`: serves until a signal comes. */
export async function start(options: ServeOptions): Promise<void> {
  closeOnSignal(await serve(options, { mode: "start" }));
}
