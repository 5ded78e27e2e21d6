import { createHmac, timingSafeEqual } from "node:crypto";
import { v4 as uuid4, v5 as uuid5 } from "@langchain/core/utils/uuid";
import { ServerError } from "../errors.ts";
import type { Observer, Score, TracePlace } from "../observability/observer.ts";
import type {
  Feedback as FeedbackResource,
  FeedbackCreate,
  SignedFeedback,
} from "../protocol/feedback.ts";

/** How long a signed link can be used. */
const LINK_MS = 7 * 24 * 60 * 60_000;

/** What a signed link allows: one judgement, of one run, under one key, until then. */
interface Grant {
  run_id: string;
  place?: TracePlace | undefined;
  key: string;
  /** Milliseconds since 1970. */
  expires: number;
}

/** A run that is judged, and where its trace is. */
export interface JudgedRun {
  run_id: string;
  place?: TracePlace | undefined;
}

/** Judgements of runs, sent on as scores of their traces. */
export class Feedback {
  readonly #observer: Observer;
  readonly #secret: string;

  /** `secret` signs the links; all processes of a deployment need the same. */
  constructor(options: { observer: Observer; secret: string }) {
    this.#observer = options.observer;
    this.#secret = options.secret;
  }

  /** Throws `conflict`, and why, while there is nowhere a judgement could go. */
  assertAvailable(): void {
    const targets = this.#observer.status();
    const judges = targets.filter(({ scores }) => scores !== false);
    if (judges.some(({ state }) => state !== "off" && state !== "misconfigured")) return;
    const why = judges.map((target) => target.message).join(" ");
    throw new ServerError(
      "conflict",
      `Feedback becomes a score in Langfuse, and tracing is off. ${why || "Set LANGFUSE_LOGGING=true and the keys."}`,
    );
  }

  /** Takes a judgement of a run. Resolves when it is accepted for delivery. */
  async submit(run: JudgedRun, feedback: FeedbackCreate): Promise<FeedbackResource> {
    this.assertAvailable();
    if (run.place === undefined) {
      throw new ServerError(
        "conflict",
        "This run has no trace that could be judged: it opted out, was not sampled, or was made while tracing was off.",
      );
    }
    // Derived from the run, so that an id which a client chose can only ever replace a judgement of this run.
    const id = uuid5(`feedback/${feedback.id ?? uuid4()}`, run.run_id);
    return this.#send(id, { ...run, key: feedback.key }, feedback);
  }

  /** Takes the judgement of a signed link; the same link again replaces it. Throws `forbidden`. */
  async submitSigned(token: string, feedback: SignedFeedback): Promise<FeedbackResource> {
    const grant = this.#open(token);
    this.assertAvailable();
    const id = uuid5(`link/${grant.key}`, grant.run_id);
    return this.#send(id, grant, feedback);
  }

  /** A link for each key, for people without credentials. */
  links(baseUrl: string, run: JudgedRun, keys: readonly string[]): Record<string, string> {
    const expires = Date.now() + LINK_MS;
    return Object.fromEntries(
      keys.map((key) => [key, `${baseUrl}/feedback/${this.#seal({ ...run, key, expires })}`]),
    );
  }

  async #send(
    id: string,
    about: JudgedRun & { key: string },
    judgement: SignedFeedback,
  ): Promise<FeedbackResource> {
    const given = judgement.score ?? judgement.value!;
    const score: Score = {
      id,
      run_id: about.run_id,
      place: about.place,
      name: about.key,
      value: typeof given === "boolean" ? Number(given) : given,
      data_type:
        typeof given === "boolean"
          ? "BOOLEAN"
          : typeof given === "number"
            ? "NUMERIC"
            : "CATEGORICAL",
      comment: judgement.comment,
    };
    await this.#observer.score(score);
    return {
      id,
      run_id: about.run_id,
      trace_id: about.place?.trace_id ?? about.run_id.replaceAll("-", ""),
      key: about.key,
      score: typeof score.value === "number" ? score.value : null,
      value: typeof score.value === "string" ? score.value : null,
      comment: judgement.comment ?? null,
    };
  }

  #seal(grant: Grant): string {
    const body = Buffer.from(JSON.stringify(grant)).toString("base64url");
    return `${body}.${this.#sign(body)}`;
  }

  #open(token: string): Grant {
    const [body = "", signature = ""] = token.split(".");
    const expected = Buffer.from(this.#sign(body));
    const given = Buffer.from(signature);
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
      throw new ServerError("forbidden", "This feedback link is not valid.");
    }
    const grant = JSON.parse(Buffer.from(body, "base64url").toString()) as Grant;
    if (grant.expires < Date.now()) {
      throw new ServerError("forbidden", "This feedback link has expired.");
    }
    return grant;
  }

  #sign(body: string): string {
    return createHmac("sha256", this.#secret).update(body).digest("base64url");
  }
}
