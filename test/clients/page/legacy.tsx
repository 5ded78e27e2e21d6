import { useStream } from "@langchain/langgraph-sdk/react";
import type { Message } from "@langchain/langgraph-sdk";
import { createRoot } from "react-dom/client";
import { Chat, apiUrl, keepThread, threadInAddress } from "./view.tsx";

/** The hook of `@langchain/langgraph-sdk/react`, over `/threads/:id/runs/stream`. */
function LegacyChat() {
  const stream = useStream<{ messages: Message[] }, { InterruptType: { question: string } }>({
    apiUrl: apiUrl(),
    assistantId: "chat",
    threadId: threadInAddress() ?? null,
    onThreadId: keepThread,
    reconnectOnMount: true,
    fetchStateHistory: true,
  });
  return (
    <Chat
      view={{
        messages: stream.messages.map((message) => {
          const before = stream.getMessagesMetadata(message)?.firstSeenState?.parent_checkpoint;
          return {
            id: message.id ?? "",
            type: message.type,
            text: typeof message.content === "string" ? message.content : "",
            ...(message.type === "human" &&
              before && {
                edit: (text: string) =>
                  void stream.submit(
                    { messages: [{ type: "human", content: text }] },
                    { checkpoint: before },
                  ),
              }),
          };
        }),
        question: stream.interrupt?.value?.question,
        isLoading: stream.isLoading,
        error: stream.error,
        send: (text) =>
          void stream.submit(
            { messages: [{ type: "human", content: text }] },
            {
              optimisticValues: (previous) => ({
                messages: [...(previous.messages ?? []), { type: "human", content: text }],
              }),
            },
          ),
        answer: (value) => void stream.submit(undefined, { command: { resume: value } }),
        stop: () => void stream.stop(),
      }}
    />
  );
}

createRoot(document.querySelector("#root")!).render(<LegacyChat />);
