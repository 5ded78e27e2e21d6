import { z } from "zod";

/*
 * The events of the v2 protocol, as `@langchain/protocol` names them: what a client subscribes to, and what it
 * gets.
 */

const CHANNELS = [
  "values",
  "updates",
  "messages",
  "tools",
  "lifecycle",
  "input",
  "checkpoints",
  "tasks",
  "custom",
] as const;

/** What can be subscribed to. `custom:<name>` is one of a graph's own channels, `custom` all of them. */
export const Channel = z.union(
  [z.enum(CHANNELS), z.templateLiteral(["custom:", z.string().min(1)])],
  `must be one of ${CHANNELS.join(", ")}, or custom:<name>`,
);

/** Where in the tree of graphs something happened; empty at the root. */
export const Namespace = z.array(z.string());

/** What a subscription wants to see. */
export const EventFilter = z.strictObject({
  channels: z.array(Channel).min(1),
  /** Those at or below one of these places; without it, all. A name without its id stands for each such task. */
  namespaces: z.array(Namespace).optional(),
  /** How many levels below the place. */
  depth: z.int().min(0).optional(),
});
export type EventFilter = z.infer<typeof EventFilter>;

/** A subscription over HTTP, which is the request itself. */
export const EventStreamRequest = EventFilter.extend({
  /** Only events with a higher `seq`. */
  since: z.int().min(0).optional(),
});
export type EventStreamRequest = z.infer<typeof EventStreamRequest>;

/** How far a graph is, at the root or below it. */
export type AgentStatus = "started" | "running" | "completed" | "failed" | "interrupted";

/** One event of a thread's stream. */
export interface ThreadEvent {
  /** Strictly increasing along the thread, across its runs; not without gaps. */
  seq: number;
  /** Unique along the thread. */
  event_id: string;
  method: string;
  channel: string;
  namespace: readonly string[];
  /** The event's `params` as JSON, written once. */
  params: string;
}
