import { startChild, type ChildServer } from "../../test/support/child-server.ts";

export type Role = "api" | "worker" | "all";

/** One place in the cluster: a process, and after its end another one. */
export interface Member {
  readonly name: string;
  readonly role: Role;
  /** Where requests can be sent; `undefined` while it starts, or answers none. */
  readonly url: string | undefined;
  readonly pid: number | undefined;
  /** Ends the process by SIGKILL or SIGTERM, and starts another one. Gives the exit code. */
  replace(signal: "SIGKILL" | "SIGTERM"): Promise<number | null>;
  /** SIGSTOP, and SIGCONT after `ms`. */
  pause(ms: number): Promise<void>;
}

/** The processes of the cluster. The opener closes them. */
export interface Members {
  readonly list: readonly Member[];
  /** Addresses that take requests. */
  urls(): string[];
  /** What processes printed before they were ended, and print now. */
  output(): string[];
  close(): Promise<number[]>;
}

export interface MembersOptions {
  /** The project's folder. */
  folder: string;
  env: Record<string, string>;
  roles: readonly Role[];
}

class Place implements Member {
  readonly name: string;
  readonly role: Role;
  readonly printed: string[] = [];
  readonly #options: MembersOptions;
  #child: ChildServer | undefined;
  #starting: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(name: string, role: Role, options: MembersOptions) {
    this.name = name;
    this.role = role;
    this.#options = options;
  }

  get url(): string | undefined {
    return this.role === "worker" ? undefined : this.#child?.url;
  }

  get pid(): number | undefined {
    return this.#child?.process.pid;
  }

  get output(): string[] {
    return this.#child ? [...this.printed, this.#child.output()] : this.printed;
  }

  async start(): Promise<void> {
    const env = { ...this.#options.env, AEGRA_ROLE: this.role };
    // A start that meets a database that is away is tried again, as whoever runs containers does.
    for (;;) {
      try {
        const child = await startChild(this.#options.folder, env);
        if (this.#closed) await child.kill();
        else this.#child = child;
        return;
      } catch (error) {
        this.printed.push(String(error));
        if (this.#closed) return;
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
  }

  async replace(signal: "SIGKILL" | "SIGTERM"): Promise<number | null> {
    await this.#starting;
    const child = this.#child;
    this.#child = undefined;
    const code = (await child?.kill(signal)) ?? null;
    if (child) this.printed.push(child.output());
    this.#starting = this.start();
    return code;
  }

  async pause(ms: number): Promise<void> {
    const { process: child } = this.#child ?? {};
    child?.kill("SIGSTOP");
    await new Promise((resolve) => setTimeout(resolve, ms));
    child?.kill("SIGCONT");
  }

  async close(): Promise<number | null> {
    this.#closed = true;
    await this.#starting;
    return (await this.#child?.kill("SIGTERM")) ?? null;
  }
}

/** Starts one process for each role, and resolves when all answer. */
export async function openMembers(options: MembersOptions): Promise<Members> {
  const places = options.roles.map((role, at) => new Place(`${role} ${at + 1}`, role, options));
  // The first one migrates an empty database.
  await places[0]?.start();
  await Promise.all(places.slice(1).map((place) => place.start()));
  return {
    list: places,
    urls: () => places.flatMap(({ url }) => url ?? []),
    output: () => places.flatMap((place) => place.output),
    async close() {
      const codes = await Promise.all(places.map((place) => place.close()));
      return codes.map((code) => code ?? -1);
    },
  };
}
