import { describe, expect, it } from "vitest";
import type { Problem } from "./problems.ts";
import { fileSchema } from "./schema.ts";
import { toWebhooks } from "./webhooks.ts";

function read(file: object, env: Record<string, string> = {}) {
  const problems: Problem[] = [];
  const values = fileSchema.parse(file);
  const webhooks = toWebhooks({ path: "aegra.json", values, warnings: [] }, { env, problems });
  return { webhooks, problems: problems.map(({ key, message }) => `${key}: ${message}`) };
}

describe("webhooks in the config", () => {
  it("have defaults", () => {
    expect(read({})).toEqual({
      webhooks: {
        enabled: true,
        headers: {},
        secret: undefined,
        url: {},
        allowPrivateNetworks: false,
      },
      problems: [],
    });
    expect(read({ http: { disable_webhooks: true } }).webhooks.enabled).toBe(false);
  });

  it("take secrets from the environment", () => {
    const file = {
      webhooks: {
        secret: "${HOOK_SECRET}",
        headers: { "X-Env": "${{ env.LG_WEBHOOK_A }}-${{env.LG_WEBHOOK_B}}", "X-Plain": "p" },
      },
    };
    expect(
      read(file, { HOOK_SECRET: "whsec_x", LG_WEBHOOK_A: "a", LG_WEBHOOK_B: "b" }),
    ).toMatchObject({
      webhooks: { secret: "whsec_x", headers: { "X-Env": "a-b", "X-Plain": "p" } },
      problems: [],
    });
  });

  it("name every variable that is missing, or that may not be sent", () => {
    const headers = { "X-A": "${{ env.LG_WEBHOOK_A }}", "X-B": "${{ env.DATABASE_URL }}" };
    const env = { DATABASE_URL: "postgres://user:password@host/db" };
    expect(read({ webhooks: { secret: "${NONE}", headers } }, env).problems).toEqual([
      "webhooks.headers.X-A: names the variable LG_WEBHOOK_A, which is not set",
      "webhooks.headers.X-B: may only use variables that begin with LG_WEBHOOK_, not DATABASE_URL",
      "webhooks.secret: names the variable NONE, which is not set",
    ]);
    expect(
      read(
        { webhooks: { env_prefix: "HOOK_", headers: { "X-A": "${{ env.HOOK_A }}" } } },
        { HOOK_A: "a" },
      ),
    ).toMatchObject({ webhooks: { headers: { "X-A": "a" } }, problems: [] });
  });

  it.each([
    { secret: "written out" },
    { headers: { "no name": "x" } },
    { headers: { name: "line\nbreak" } },
    { url: { allowed_ports: [70_000] } },
    { url: { allow: ["x"] } },
  ])("are refused where they make no sense: %j", (webhooks) => {
    expect(fileSchema.safeParse({ webhooks }).success).toBe(false);
  });
});
