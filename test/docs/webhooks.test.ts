import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createJiti } from "jiti";
import { expect, test } from "vitest";
import { signWebhook } from "../../src/engine/webhooks.ts";

type Verify = (headers: Headers, body: string, secret: string) => boolean;

test("the lines of the page verify what the server signs, and nothing else", async () => {
  const page = await readFile(new URL("../../docs/webhooks.md", import.meta.url), "utf8");
  const [, code = ""] = /```ts\n(import \{ createHmac[^]*?)```/u.exec(page) ?? [];
  const folder = await mkdtemp(join(tmpdir(), "aegra-docs-"));
  const file = join(folder, "verify.ts");
  await writeFile(file, `${code}\nexport { verify };\n`);
  const jiti = createJiti(import.meta.url);
  const { verify } = await jiti.import<{ verify: Verify }>(pathToFileURL(file).href);
  await rm(folder, { recursive: true });

  const body = '{"status":"success","text":"ä"}';
  const now = Math.floor(Date.now() / 1_000);
  const sent = (secret: string, time = now): Headers =>
    new Headers({
      "webhook-id": "one",
      "webhook-timestamp": String(time),
      "webhook-signature": signWebhook(`one.${time}.${body}`, secret),
    });
  for (const secret of [
    `whsec_${Buffer.from("32 bytes that nobody else knows!").toString("base64")}`,
    "0123456789abcdef0123456789abcdef",
  ]) {
    expect(verify(sent(secret), body, secret)).toBe(true);
    expect(verify(sent(secret), body.replace("ä", "a"), secret)).toBe(false);
    expect(verify(sent(secret), body, "another secret")).toBe(false);
    expect(verify(sent(secret, now - 3_600), body, secret)).toBe(false);
    expect(verify(new Headers(), body, secret)).toBe(false);
  }
});
