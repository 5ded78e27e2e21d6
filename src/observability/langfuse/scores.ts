import type { Score } from "../observer.ts";
import type { DeliveryRecord } from "../delivery/record.ts";
import type { LangfuseSettings } from "./config.ts";
import { traceIdOf } from "../trace/identity.ts";

/** Where scores go. */
export const SCORES_PATH = "/api/public/scores";

/** A score as the body of one request, made once: its id makes a second post harmless. `mask` sees the comment. */
export function encodeScore(
  score: Score,
  settings: LangfuseSettings,
  mask: (comment: string) => string,
): DeliveryRecord {
  const traceId = score.place?.trace_id ?? traceIdOf(score.run_id);
  const body = {
    id: score.id,
    traceId,
    name: score.name,
    value: score.value,
    dataType: score.data_type,
    environment: settings.environment,
    ...(score.comment === undefined ? {} : { comment: mask(score.comment) }),
  };
  return { traceId, root: false, bytes: Buffer.from(JSON.stringify(body)) };
}
