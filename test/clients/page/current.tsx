import { useStream } from "@langchain/react";
import { createRoot } from "react-dom/client";
import { Chat, apiUrl, keepThread, threadInAddress } from "./view.tsx";

interface State {
  messages: { type: string; content: string; id?: string }[];
}

/** The hook of `@langchain/react`, over the event protocol. */
function CurrentChat() {
  const stream = useStream<State, { question: string }>({
    apiUrl: apiUrl(),
    assistantId: "chat",
    threadId: threadInAddress() ?? null,
    onThreadId: keepThread,
  });
  /** The checkpoint before a message was said. The hook's own metadata tells that of the newest one only. */
  const checkpointBefore = async (messageId: string): Promise<string> => {
    const history = await stream.client.threads.getHistory<State>(stream.threadId!, { limit: 100 });
    const first = history.findLast(({ values }) =>
      values.messages?.some(({ id }) => id === messageId),
    );
    return first!.parent_checkpoint!.checkpoint_id!;
  };
  return (
    <Chat
      view={{
        messages: stream.messages.map((message) => ({
          id: message.id ?? "",
          type: message.type,
          text: message.text,
          ...(message.type === "human" && {
            edit: async (text: string) => {
              const forkFrom = await checkpointBefore(message.id!);
              await stream.submit({ messages: [{ type: "human", content: text }] }, { forkFrom });
            },
          }),
        })),
        question: stream.interrupt?.value?.question,
        isLoading: stream.isLoading,
        error: stream.error,
        send: (text) => void stream.submit({ messages: [{ type: "human", content: text }] }),
        answer: (value) => void stream.respond(value),
        stop: () => void stream.stop(),
      }}
    />
  );
}

createRoot(document.querySelector("#root")!).render(<CurrentChat />);
