import { describe, expect, it } from "vitest";
import { parseSchedule } from "./cron-schedule.ts";

/** The next times after `from`, in UTC. */
function times(schedule: string, timezone: string | null, from: string, count = 3): string[] {
  const parsed = parseSchedule(schedule, timezone);
  const found: string[] = [];
  let moment: Date | undefined = new Date(from);
  while (found.length < count) {
    moment = parsed.next(moment);
    if (!moment) break;
    found.push(moment.toISOString());
  }
  return found;
}

describe("a schedule", () => {
  it("is in UTC without a time zone", () => {
    expect(times("30 9 * * *", null, "2026-11-25T09:30:00.000Z", 2)).toEqual([
      "2026-11-26T09:30:00.000Z",
      "2026-11-27T09:30:00.000Z",
    ]);
  });

  it("is due after the moment, not at it", () => {
    expect(times("* * * * *", null, "2026-11-25T09:30:00.000Z", 1)).toEqual([
      "2026-11-25T09:31:00.000Z",
    ]);
    expect(times("* * * * *", null, "2026-11-25T09:30:59.999Z", 1)).toEqual([
      "2026-11-25T09:31:00.000Z",
    ]);
  });

  it("keeps its hour when the clocks change", () => {
    expect(times("0 9 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2)).toEqual([
      "2026-03-07T14:00:00.000Z",
      "2026-03-08T13:00:00.000Z",
    ]);
  });

  it("is due at the jump for a time that spring skips", () => {
    expect(times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2)).toEqual([
      "2026-03-29T01:00:00.000Z",
      "2026-03-30T00:30:00.000Z",
    ]);
  });

  it("is due once for a time that autumn repeats, and each half hour all the same", () => {
    expect(times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2)).toEqual([
      "2026-10-25T00:30:00.000Z",
      "2026-10-26T01:30:00.000Z",
    ]);
    expect(times("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4)).toEqual([
      "2026-10-25T00:30:00.000Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T01:30:00.000Z",
      "2026-10-25T02:00:00.000Z",
    ]);
  });

  it("takes either of day of month and day of week, as cron does", () => {
    expect(times("0 0 13 * FRI", null, "2026-11-10T00:00:00Z", 3)).toEqual([
      "2026-11-13T00:00:00.000Z",
      "2026-11-20T00:00:00.000Z",
      "2026-11-27T00:00:00.000Z",
    ]);
  });

  it("may be a word", () => {
    expect(times("@daily", "Asia/Tokyo", "2026-11-25T00:00:00Z", 1)).toEqual([
      "2026-11-25T15:00:00.000Z",
    ]);
  });

  it("may never be due", () => {
    expect(times("0 0 30 2 *", null, "2026-11-25T00:00:00Z")).toEqual([]);
    expect(times("0 0 29 2 *", null, "2026-11-25T00:00:00Z", 1)).toEqual([
      "2028-02-29T00:00:00.000Z",
    ]);
  });
});

describe("is refused with the name of its field:", () => {
  const refusal = (schedule: string, timezone: string | null): unknown => {
    try {
      parseSchedule(schedule, timezone);
    } catch (error) {
      return error;
    }
    return undefined;
  };

  it.each([
    ["", "five fields"],
    ["* * * *", "five fields"],
    ["*/5 * * * * *", "seconds are not supported"],
    ["@reboot", "five fields"],
    ["@secondly", "five fields"],
    ["2026-12-01T00:00:00", "five fields"],
    ["61 * * * *", "Invalid value for minute: 61"],
    ["a b c d e", "is not a schedule"],
  ])("schedule %j", (schedule, message) => {
    expect(refusal(schedule, null)).toMatchObject({
      code: "invalid_request",
      message: expect.stringMatching(/^schedule: /) as string,
      details: [{ path: "schedule", message: expect.stringContaining(message) as string }],
    });
  });

  it.each(["Mars/Phobos", "+02:00", ""])("timezone %j", (timezone) => {
    expect(refusal("* * * * *", timezone)).toMatchObject({
      code: "invalid_request",
      details: [{ path: "timezone" }],
    });
  });
});
