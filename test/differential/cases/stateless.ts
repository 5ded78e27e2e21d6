import { runOf, type Cases } from "./case.ts";

const INPUT = { input: { input: "x" } };

/** Runs without a thread. */
export const statelessCases: Cases = {
  "wait without a thread": async (probe) => {
    await probe.send("wait", "POST /runs/wait", { body: { assistant_id: "steps", ...INPUT } });
  },
  "wait without a thread for a failure": async (probe) => {
    await probe.send("wait", "POST /runs/wait", { body: { assistant_id: "failing", ...INPUT } });
    await probe.call("the client", (client) => client.runs.wait(null, "failing", INPUT));
  },
  "wait without a thread for an interrupt": async (probe) => {
    await probe.send("wait", "POST /runs/wait", { body: { assistant_id: "approval", ...INPUT } });
  },
  "stream without a thread": async (probe) => {
    const answer = await probe.send("stream", "POST /runs/stream", {
      body: { assistant_id: "steps", ...INPUT, stream_mode: ["values", "updates"] },
    });
    const run = runOf(answer);
    await probe.send("again", `GET /runs/${run}/stream`);
  },
  "stream a failure without a thread": async (probe) => {
    await probe.send("stream", "POST /runs/stream", {
      body: { assistant_id: "failing", ...INPUT, stream_mode: "updates" },
    });
  },
  "debug without a thread": async (probe) => {
    await probe.send("stream", "POST /runs/stream", {
      body: { assistant_id: "steps", ...INPUT, stream_mode: "debug" },
    });
  },
  "messages without a thread": async (probe) => {
    await probe.send("stream", "POST /runs/stream", {
      body: {
        assistant_id: "chat",
        input: { messages: [{ type: "human", content: "Hi", id: "hi" }] },
        stream_mode: "messages-tuple",
      },
    });
  },
  "a background run without a thread": async (probe) => {
    await probe.send("create", "POST /runs", { body: { assistant_id: "steps", ...INPUT } });
  },
  "a run without a thread that keeps one": async (probe) => {
    await probe.send("wait", "POST /runs/wait", {
      body: { assistant_id: "steps", ...INPUT, on_completion: "keep" },
    });
  },
  "what a graph without a thread finds in its config": async (probe) => {
    await probe.send("wait", "POST /runs/wait", { body: { assistant_id: "inspect", input: {} } });
  },
};
