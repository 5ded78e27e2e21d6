import { expect, test } from "vitest";
import { createWithhold } from "./withhold.ts";

test("what headers hold is taken out in every form an answer may give it", () => {
  const token = Buffer.from("pk-lf-a:sk-lf-???>>>b").toString("base64");
  expect(token).toContain("/");
  const withhold = createWithhold({
    Authorization: `Basic ${token}`,
    cookie: "sid=0123456789; theme=dark",
    "x-bearer": "Bearer tok-1",
  });
  for (const text of [
    `Basic ${token}`,
    token,
    token.replaceAll("/", "\\/"),
    encodeURIComponent(token),
    "pk-lf-a",
    "sk-lf-???>>>b",
    Buffer.from("sk-lf-???>>>b").toString("base64"),
    Buffer.from("pk-lf-a").toString("base64").replace(/=+$/, ""),
    "0123456789",
    "tok-1",
  ])
    expect(withhold(`<${text}>`)).toBe("<<redacted>>");
});

test("what is nobody's secret stays", () => {
  const withhold = createWithhold({
    "x-langfuse-ingestion-version": "4",
    "x-langfuse-sdk-name": "javascript",
    "x-tenant": "1",
    accept: "application/json",
  });
  const text = "HTTP 411, javascript 4 1 application/json";
  expect(withhold(text)).toBe(text);
});
