import { useState } from "react";

/** What a chat page needs of whichever hook talks to the server. */
export interface ChatView {
  messages: { id: string; type: string; text: string; edit?: (text: string) => unknown }[];
  question: string | undefined;
  isLoading: boolean;
  error: unknown;
  send: (text: string) => void;
  answer: (value: string) => void;
  stop: () => void;
}

/** The thread in the page's address, so that a reload finds it again. */
export function threadInAddress(): string | undefined {
  return new URL(window.location.href).searchParams.get("thread") ?? undefined;
}

/** Keeps the thread in the page's address. */
export function keepThread(threadId: string): void {
  const url = new URL(window.location.href);
  url.searchParams.set("thread", threadId);
  window.history.replaceState(null, "", url);
}

/** Where the API is. */
export function apiUrl(): string {
  return new URL(window.location.href).searchParams.get("api")!;
}

/** A plain chat: messages, a pending question, a field and buttons. */
export function Chat({ view }: { view: ChatView }) {
  const [text, setText] = useState("");
  return (
    <main data-loading={String(view.isLoading)}>
      <ol>
        {view.messages.map((message, index) => (
          <li key={message.id || index} data-type={message.type}>
            <span>{message.text}</span>
            {message.edit && (
              <button type="button" onClick={() => message.edit?.(text)}>
                edit
              </button>
            )}
          </li>
        ))}
      </ol>
      {view.question !== undefined && (
        <section role="alert">
          <p>{view.question}</p>
          <button type="button" onClick={() => view.answer("yes")}>
            approve
          </button>
        </section>
      )}
      {view.error !== undefined && view.error !== null && (
        <pre id="error">
          {view.error instanceof Error ? view.error.message : JSON.stringify(view.error)}
        </pre>
      )}
      <input value={text} onChange={(event) => setText(event.target.value)} />
      <button type="button" id="send" onClick={() => view.send(text)}>
        send
      </button>
      <button type="button" id="stop" onClick={() => view.stop()}>
        stop
      </button>
    </main>
  );
}
