import { Cron } from "croner";
import { ServerError } from "../errors.ts";

/** When a cron is due. */
export interface Schedule {
  /** The first time it is due after `moment`; `undefined` if there is none. */
  next(moment: Date): Date | undefined;
}

const NICKNAMES = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/i;

/**
 * Reads a schedule of five fields (minute, hour, day of month, month, day of week) or a nickname such as
 * `@daily`, in a time zone of the IANA database; without one in UTC. A time of day that the clocks skip in
 * spring is due when they jump; one that they repeat in autumn is due once.
 *
 * @throws ServerError `invalid_request` that names `schedule` or `timezone`.
 */
export function parseSchedule(schedule: string, timezone: string | null | undefined): Schedule {
  if (timezone !== null && timezone !== undefined) assertTimezone(timezone);
  const fields = schedule.trim().split(/\s+/);
  if (fields.length !== 5 && !NICKNAMES.test(schedule.trim())) {
    const seconds = fields.length === 6 ? "; seconds are not supported" : "";
    throw refusal(
      "schedule",
      `"${schedule}" must have five fields (minute, hour, day of month, month, day of week), or be a word such as @daily${seconds}`,
    );
  }
  let cron: Cron;
  try {
    cron = new Cron(schedule, { paused: true, mode: "5-part", timezone: timezone ?? "UTC" });
  } catch (error) {
    const reason = (error as Error).message.replace(/^CronPattern: /, "");
    throw refusal("schedule", `"${schedule}" is not a schedule: ${reason}`);
  }
  return { next: (moment) => cron.nextRun(moment) ?? undefined };
}

/** A fixed offset is no time zone: it knows nothing of summer time, and runs would move by an hour. */
function assertTimezone(timezone: string): void {
  try {
    if (!/^[a-z]/i.test(timezone)) throw new RangeError("an offset, or empty");
    new Intl.DateTimeFormat("en", { timeZone: timezone });
  } catch {
    throw refusal(
      "timezone",
      `"${timezone}" is not a time zone; write a name of the IANA database such as Europe/Berlin`,
    );
  }
}

function refusal(field: string, message: string): ServerError {
  return new ServerError("invalid_request", `${field}: ${message}`, {
    details: [{ path: field, message }],
  });
}
