/**
 * A mesh under load: every sender sends numbered messages to every listener, each in a process of its own, while a test
 * kills, stops and cuts what it likes.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { PeerOptions, PeerStatus } from "../../../src/jobs-and-peers/peer/index.js";
import { RemoteError, RemoteProcessEnded } from "../../scenarios/support/remote-process.js";
import { eventually } from "../../support/eventually.js";
import { rowsOf } from "../../support/on-server.js";
import { CursorWatch } from "./cursor-watch.js";
import type { FaultyWire } from "./faulty-wire.js";
import {
  backAt,
  begunBy,
  type Channel,
  confirmedOn,
  currentProcess,
  type Member,
  missingOn,
  stateOf,
} from "./member.js";
import { MeshProcess } from "./mesh-process.js";
import type { HandlerKind, StreamOptions } from "./mesh-protocol.js";
import { microseconds } from "./mesh-protocol.js";

/** Delivery is back within this time after a fault has ended. */
export const recoveryLimitMs = 120_000;

/** Peers, load and settings of a mesh. */
export interface MeshOptions {
  readonly url: string;
  /** Names; a peer's topic is its name. Default: two. */
  readonly senders?: readonly string[] | undefined;
  readonly listeners?: readonly string[] | undefined;
  /** Messages per second from each sender to each listener. Default 100. */
  readonly perSecond?: number | undefined;
  /** Default 200. */
  readonly window?: number | undefined;
  readonly payloadBytes?: number | undefined;
  /** The message that kills the process of its handler. */
  readonly poison?: { readonly sender: string; readonly listener: string; readonly number: number } | undefined;
  /** Settings of all peers. */
  readonly peer?: Partial<PeerOptions> | undefined;
  /** The wires over which some listeners are dialled. */
  readonly wires?: Readonly<Record<string, FaultyWire>> | undefined;
  /** Action of the listeners' handlers. */
  readonly handler?: HandlerKind | undefined;
  readonly handlerMs?: number | undefined;
  readonly execArgv?: readonly string[] | undefined;
  /** Constants of the protocol that are others in its processes. */
  readonly constants?: Readonly<Record<string, number>> | undefined;
}

export class Mesh implements AsyncDisposable {
  readonly members: readonly Member[];
  readonly cursors: CursorWatch;
  readonly options: MeshOptions;
  readonly #directory = mkdtempSync(join(tmpdir(), "hawser-mesh-"));
  /** Processes started ahead, so that a killed one is replaced at once. */
  readonly #spares = new Map<Member, MeshProcess>();
  #ending = false;

  private constructor(options: MeshOptions) {
    this.options = options;
    const { senders = ["a", "b"], listeners = ["x", "y"] } = options;
    const member = (name: string, isSender: boolean): Member => {
      return { name, isSender, processes: [], epochs: new Map() };
    };
    this.members = [...listeners.map((name) => member(name, false)), ...senders.map((name) => member(name, true))];
    this.cursors = new CursorWatch(options.url);
  }

  /** Starts all processes, listeners first, and resolves when every channel has confirmed a message. */
  static async start(options: MeshOptions): Promise<Mesh> {
    const mesh = new Mesh(options);
    try {
      for (const members of [mesh.listeners, mesh.senders]) {
        await Promise.all(members.map((member) => mesh.launch(member)));
      }
      return mesh;
    } catch (error) {
      await mesh[Symbol.asyncDispose]();
      throw error;
    }
  }

  get senders(): readonly Member[] {
    return this.members.filter(({ isSender }) => isSender);
  }

  get listeners(): readonly Member[] {
    return this.members.filter(({ isSender }) => !isSender);
  }

  get channels(): readonly Channel[] {
    return this.senders.flatMap((sender) => this.listeners.map((listener) => ({ sender, listener })));
  }

  /** The member of that name. */
  member(name: string): Member {
    const found = this.members.find((each) => each.name === name);
    if (found === undefined) throw new Error(`the mesh has no member "${name}"`);
    return found;
  }

  /** The present process of a member. */
  current(member: Member): MeshProcess {
    return currentProcess(member);
  }

  /** Starts the next process of a name. Starts that fail for want of Postgres are tried again. */
  async launch(member: Member): Promise<MeshProcess> {
    const started = await this.#spare(member).ready();
    this.#spares.delete(member);
    member.processes.push(started);
    // The next one starts while this one works.
    if (member.processes.length > 1) this.#spare(member);
    await untilStarted(async () => {
      const address = await started.call("run");
      this.options.wires?.[member.name]?.leadTo(address);
    });
    await untilStarted(async () => {
      const [row] = await rowsOf(
        this.options.url,
        `SELECT epoch::float8 AS epoch FROM hawser_peer_data.peers WHERE name = '${member.name}'`,
      );
      member.epochs.set(started.options.run, row?.["epoch"] as number);
    });
    if (member.isSender) await started.call("beginStreams", this.#streams(member));
    return started;
  }

  /** Kills the present process of a member, and starts the next. Resolves with when that began. */
  async replace(member: Member): Promise<number> {
    await this.#spare(member).ready();
    await this.current(member).crash();
    const at = microseconds();
    await this.launch(member);
    return at;
  }

  /** Path of a process's journal. */
  journalOf(process: string): string {
    return join(this.#directory, process);
  }

  /** The statuses of a member's present process since a time. */
  statuses<Kind extends PeerStatus["kind"]>(
    member: Member,
    kind: Kind,
    since = 0,
  ): { readonly at: number; readonly status: Extract<PeerStatus, { kind: Kind }> }[] {
    return this.current(member)
      .journal.refresh()
      .statuses.filter(({ at, status }) => status.kind === kind && at >= since) as never;
  }

  /**
   * Waits until messages sent after `since` are begun, and confirmed, on every channel. Resolves with how long that took,
   * in milliseconds.
   *
   * @throws when it takes longer than `recoveryLimitMs`
   */
  async recovered(since: number, channels = this.channels): Promise<number> {
    const deadline = since + recoveryLimitMs * 1_000;
    let lastBack = 0;
    await eventually(
      "messages arrive and are confirmed on every channel after the fault",
      () => {
        const times = channels.map((channel) => backAt(channel, since));
        lastBack = Math.max(...times);
        return Number.isFinite(lastBack);
      },
      Math.max((deadline - microseconds()) / 1_000, 0),
    ).catch((cause: Error) => {
      throw new Error([cause.message, ...channels.map(stateOf)].join("\n"), { cause });
    });
    return (lastBack - since) / 1_000;
  }

  /** Waits until the present process of a listener has begun that many more. */
  async progress(listener: Member, count: number): Promise<void> {
    const { journal } = this.current(listener);
    const before = journal.refresh().begun.length;
    await eventually(`"${listener.name}" begins ${count} more`, () => journal.refresh().begun.length >= before + count);
  }

  /** Ends the streams, and waits until everything confirmed was begun. */
  async settle(limitMs = recoveryLimitMs): Promise<void> {
    this.#ending = true;
    await Promise.all(this.senders.map((sender) => this.current(sender).call("endStreams")));
    const awaited = new Set(this.channels.flatMap(missingOn));
    const read = new Map<Member, number>();
    await eventually(
      "everything that was confirmed is handled",
      () => {
        for (const listener of this.listeners) {
          const { begun } = this.current(listener).journal.refresh();
          for (let index = read.get(listener) ?? 0; index < begun.length; index++) {
            const { sender, run, number } = begun[index] as (typeof begun)[0];
            awaited.delete(`${sender} ${run} ${number} ${listener.name}`);
          }
          read.set(listener, begun.length);
        }
        return awaited.size === 0;
      },
      limitMs,
    );
  }

  /** All starts of handlers of a listener, in the order of time. */
  begun(listener: Member) {
    return begunBy(listener);
  }

  /** All confirmed messages of a sender to a listener. */
  confirmed(sender: Member, listener: Member) {
    return confirmedOn({ sender, listener });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const processes = [...this.members.flatMap((member) => member.processes), ...this.#spares.values()];
    await Promise.all(processes.map((process) => process[Symbol.asyncDispose]()));
    await this.cursors[Symbol.asyncDispose]();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #streams(sender: Member): StreamOptions[] {
    const { perSecond = 100, window = 200, payloadBytes, poison } = this.options;
    return this.listeners.map(({ name }) => {
      const isPoisoned = poison?.sender === sender.name && poison.listener === name && sender.processes.length === 1;
      return { topic: name, perSecond, window, payloadBytes, ...(isPoisoned ? { poisonAt: poison.number } : {}) };
    });
  }

  #spare(member: Member): MeshProcess {
    const known = this.#spares.get(member);
    if (known !== undefined) return known;
    const run = member.processes.length + 1;
    const { url, peer, wires, handler, handlerMs, execArgv, constants } = this.options;
    const { name } = member;
    const advertise = wires?.[name]?.advertise;
    const spare = new MeshProcess(
      {
        peer: {
          ...{ name, topic: name, listen: "127.0.0.1:0", databaseUrl: url, ...peer },
          ...(advertise === undefined ? {} : { advertise }),
        },
        run,
        journal: this.journalOf(`${name}.${run}`),
        constants,
        handler: member.isSender ? undefined : handler,
        handlerMs,
      },
      execArgv,
    );
    if (!this.#ending) this.#spares.set(member, spare);
    return spare;
  }
}

/** Tries again what fails because Postgres is away. A process that has ended answers no more. */
async function untilStarted(work: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      const isForPostgres = !(error instanceof RemoteError) || error.failure.code === "startup_failed";
      if (error instanceof RemoteProcessEnded || !isForPostgres || Date.now() > deadline) throw error;
      await delay(20);
    }
  }
}
