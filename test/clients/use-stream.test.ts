import type { Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTestDatabases } from "../support/databases.ts";
import { registryOf } from "../support/graphs.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { openBrowser, type TestBrowser } from "./browser.ts";
import { createControlledChat } from "./chat.ts";

let tested: TestBrowser;
beforeAll(async () => {
  tested = await openBrowser();
  // Bundling two pages takes its time on a busy machine.
});
afterAll(() => tested?.close());

describe.each(["legacy", "current"] as const)("the %s useStream in Chromium", (kind) => {
  const databases = createTestDatabases("pglite");
  const chat = createControlledChat();
  let server: TestServer;
  let page: Page;
  /** What the page complained of. */
  const complaints: string[] = [];

  beforeAll(async () => {
    server = await startServer(databases, registryOf({ chat: chat.graph }));
  });
  beforeEach(async () => {
    chat.hold();
    complaints.length = 0;
    page = await tested.browser.newPage();
    page.setDefaultTimeout(60_000);
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error") complaints.push(message.text());
    });
    await page.goto(tested.address(kind, server.url));
  });
  afterEach(async () => {
    await page.close();
    chat.release();
    expect(complaints).toEqual([]);
  });

  const say = async (text: string): Promise<void> => {
    await page.fill("input", text);
    await page.click("#send");
  };
  const messages = (): Promise<string[]> => page.locator("li > span").allTextContents();
  const shows = async (...texts: string[]): Promise<void> => {
    await expect.poll(messages, { timeout: 60_000 }).toEqual(texts);
  };
  const idle = (): Promise<unknown> => page.waitForSelector('main[data-loading="false"]');
  const threadId = (): string => new URL(page.url()).searchParams.get("thread")!;

  it("holds a conversation, token by token", async () => {
    await say("slow hello");
    // The first word is there while the rest is not written yet.
    await shows("slow hello", "You ");
    chat.release();
    await shows("slow hello", "You wrote: slow hello");
    await idle();
    await say("again");
    await shows("slow hello", "You wrote: slow hello", "again", "You wrote: again");
    await idle();
    expect(await page.locator("#error").count()).toBe(0);
  });

  it("shows a question and goes on with the answer", async () => {
    await say("approve this");
    await page.waitForSelector('section[role="alert"]');
    expect(await page.textContent("section p")).toBe('May I answer "approve this"?');
    await page.click("section button");
    await shows("approve this", "You said yes.", "You wrote: approve this");
    await idle();
    expect(await page.locator("section").count()).toBe(0);
  });

  it("shows a pending question again after a reload", async () => {
    await say("approve that");
    await page.waitForSelector('section[role="alert"]');
    await idle();
    await page.reload();
    await page.waitForSelector('section[role="alert"]');
    await page.click("section button");
    await shows("approve that", "You said yes.", "You wrote: approve that");
  });

  it("rejoins a running stream after a reload", async () => {
    await say("slow reload");
    await shows("slow reload", "You ");
    await page.reload();
    await shows("slow reload", "You ");
    chat.release();
    await shows("slow reload", "You wrote: slow reload");
    await idle();
  });

  it("edits an old message, on a branch of its own", async () => {
    await say("first");
    await shows("first", "You wrote: first");
    await idle();
    await say("second");
    await shows("first", "You wrote: first", "second", "You wrote: second");
    await idle();
    await page.fill("input", "changed");
    await page.locator("li button").first().click();
    // The hook of @langchain/react 1.1 keeps showing the messages of the branch that was left, too.
    await expect.poll(messages, { timeout: 60_000 }).toContain("You wrote: changed");
    await idle();
    await page.reload();
    await shows("changed", "You wrote: changed");
    const state = await server.client.threads.getState<{ messages: unknown[] }>(threadId());
    expect(state.values.messages).toHaveLength(2);
    // The branch that was left is still in the history.
    const history = await server.client.threads.getHistory<{ messages: unknown[] }>(threadId(), {
      limit: 50,
    });
    expect(Math.max(...history.map(({ values }) => values.messages?.length ?? 0))).toBe(4);
  });

  it("stops a run", async () => {
    await say("slow stop");
    await shows("slow stop", "You ");
    await page.click("#stop");
    await idle();
    await expect
      .poll(async () => (await server.client.threads.get(threadId())).status, { timeout: 60_000 })
      .not.toBe("busy");
    const [run] = await server.client.runs.list(threadId());
    expect(run?.status).toBe("interrupted");
    chat.release();
    await say("after");
    await expect.poll(messages, { timeout: 60_000 }).toContain("You wrote: after");
  });
});
