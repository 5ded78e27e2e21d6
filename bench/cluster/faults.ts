import type { LabDatabase } from "./database.ts";
import type { Member, Members } from "./members.ts";
import type { Random } from "./random.ts";

/** One thing that goes wrong. Resolves when its cause is over, not when its effects are. */
export type FaultKind = keyof typeof FAULTS;

/** A fault as it happened, in this machine's clock. */
export interface Fault {
  kind: FaultKind;
  what: string;
  at: number;
  until: number;
}

interface Scene {
  database: LabDatabase;
  members: Members;
  random: Random;
  /** How long a lease lasts; a process that is paused is paused for longer. */
  leaseMs: number;
}

const someone = ({ members, random }: Scene): Member => random.pick(members.list);

/** Every fault, with what it says of itself. */
export const FAULTS = {
  "kill -9": async (scene: Scene) => {
    const member = someone(scene);
    await member.replace("SIGKILL");
    return member.name;
  },
  SIGTERM: async (scene: Scene) => {
    const member = someone(scene);
    const code = await member.replace("SIGTERM");
    return code === 0 ? member.name : `${member.name} ended with code ${code}`;
  },
  "paused process": async (scene: Scene) => {
    const member = someone(scene);
    await member.pause(scene.leaseMs + scene.random.between(1_000, 3_000));
    return member.name;
  },
  "dropped connections": async ({ database }: Scene) =>
    `${await database.dropConnections()} of them`,
  "lost notifications": async ({ database, random }: Scene) => {
    await database.deafen(random.between(1_000, 3_000));
    return "";
  },
  "database restart": async ({ database }: Scene) => {
    await database.restart();
    return "";
  },
  "paused database": async ({ database, random }: Scene) => {
    const ms = random.between(1_000, 6_000);
    await database.freeze(ms);
    return `${(ms / 1_000).toFixed(1)} s`;
  },
} satisfies Record<string, (scene: Scene) => Promise<string>>;

/** One fault after the other, chosen at random, with `gapMs` or so in between, until `until` says so. */
export async function injectFaults(
  scene: Scene,
  options: {
    kinds: readonly FaultKind[];
    most: number;
    gapMs: number;
    until: () => boolean;
    /** Gets each fault when it is over. */
    faults: Fault[];
  },
): Promise<Fault[]> {
  const { faults } = options;
  const { random } = scene;
  // All kinds in a row before any comes again.
  let left: FaultKind[] = [];
  for (;;) {
    const restMs = random.between(options.gapMs / 2, options.gapMs * 1.5);
    await new Promise((resolve) => setTimeout(resolve, restMs));
    if (options.until() || options.kinds.length === 0 || faults.length >= options.most)
      return faults;
    if (left.length === 0) left = [...options.kinds];
    const kind = random.pick(left);
    left = left.filter((other) => other !== kind);
    const at = Date.now();
    const what = await FAULTS[kind](scene).catch((error: unknown) => `failed: ${String(error)}`);
    faults.push({ kind, what, at, until: Date.now() });
  }
}
