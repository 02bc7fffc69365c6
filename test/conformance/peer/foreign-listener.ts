/**
 * A foreign peer's receiving half, after docs/protocol.md and docs/store-protocol.md.
 *
 * Everything of a channel runs one after another, so that a drain always begins after the question that it answers.
 */
import { type Handled, type Message, maxMessageBytes, messageOfRow, messagesOf } from "./messages.js";
import type { ForeignStore, Position } from "./store.js";
import type { Decision, FrameJson, HelloJson, WireConnection } from "./wire.js";

const creditBytes = 65536;

interface ChannelState {
  readonly channelId: number;
  readonly sender: string;
  /** Accepted. */
  watermark: Position;
  /** Committed. */
  cursor: Position;
  connection: WireConnection | undefined;
  epoch: number;
  backlog: number;
  live: boolean;
  /** Numbered messages from the connection that wait for lower ones. */
  held: Message[];
  tail: Promise<void>;
}

/** The channels that lead to one peer. */
export class ForeignListener {
  readonly #channels = new Map<number, ChannelState>();
  readonly #gaps: string[] = [];
  /** Pending queries of the store beside the channels' own work. */
  readonly #lookups = new Set<Promise<unknown>>();
  #stopped = false;
  /** The newest connection. */
  latest: WireConnection | undefined;

  readonly #store: ForeignStore;
  readonly #handle: (message: Handled) => void;

  constructor(store: ForeignStore, handle: (message: Handled) => void) {
    this.#store = store;
    this.#handle = handle;
  }

  /** Whatever went wrong that the protocol says to report. */
  get reported(): readonly string[] {
    return this.#gaps;
  }

  /** Takes what was stored while nobody listened. */
  async start(): Promise<void> {
    for (const channelId of await this.#store.channelsWithMessages()) await this.announced(channelId);
  }

  /** Decides on a Hello that has proved itself. */
  async decide(hello: HelloJson): Promise<Decision> {
    if (this.#stopped) return refuse("BUSY", "this peer stops");
    return await this.#underWay(this.#lookAt(hello));
  }

  async #lookAt(hello: HelloJson): Promise<Decision> {
    const row = await this.#store.channel(hello.channelId);
    const isOurs = row?.sender_name === hello.senderName && row.source_topic === hello.sourceTopic;
    if (!isOurs || row.listener_name !== this.#store.name) return refuse("WRONG_PEER", "not a channel to this peer");
    if ((await this.#store.senderEpoch(hello.senderName)) !== Number(hello.epoch)) {
      return refuse("FENCED", "the catalog has another epoch");
    }
    const channel = this.#channelOf(hello.channelId, row);
    channel.backlog = await this.#store.countAfter(channel.channelId, channel.watermark);
    const { cursor, backlog } = channel;
    return {
      welcome: {
        cursorEpoch: String(cursor.epoch),
        cursor: String(cursor.number),
        backlog: String(backlog),
        credit: String(creditBytes),
        maxMessageBytes: String(maxMessageBytes),
      },
    };
  }

  /** A sender was welcomed. */
  onConnection(hello: HelloJson, connection: WireConnection): void {
    // It was welcomed just before the end.
    if (this.#stopped) {
      connection.end();
      return;
    }
    const channel = this.#channels.get(hello.channelId)!;
    channel.connection?.end();
    channel.connection = connection;
    this.latest = connection;
    channel.epoch = Number(hello.epoch);
    channel.live = false;
    channel.held = [];
    this.#soon(channel, async () => {
      await this.#drain(channel);
      // No row of an older epoch is left: the new one begins.
      if (channel.epoch > channel.watermark.epoch) channel.watermark = { epoch: channel.epoch, number: 0 };
      this.#ack(channel);
    });
    void this.#listen(channel, connection);
  }

  /** Messages may be stored in the channel. */
  async announced(channelId: number): Promise<void> {
    if (!this.#stopped) await this.#underWay(this.#drainAnnounced(channelId));
  }

  async #drainAnnounced(channelId: number): Promise<void> {
    const row = await this.#store.channel(channelId);
    if (row === undefined || row.listener_name !== this.#store.name) return;
    const channel = this.#channelOf(channelId, row);
    this.#soon(channel, () => this.#drain(channel));
    await channel.tail;
  }

  /** Takes nothing new, finishes what is under way, and says Goodbye with the committed cursors. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.allSettled(this.#lookups);
    for (const channel of this.#channels.values()) {
      await channel.tail;
      const { epoch, number } = channel.cursor;
      channel.connection?.send({ goodbye: { epoch: String(epoch), number: String(number) } });
      channel.connection?.end();
    }
  }

  #channelOf(channelId: number, row: { sender_name: string; cursor_epoch: number; cursor: number }): ChannelState {
    let channel = this.#channels.get(channelId);
    if (channel === undefined) {
      const cursor = { epoch: Number(row.cursor_epoch), number: Number(row.cursor) };
      channel = {
        channelId,
        sender: row.sender_name,
        watermark: cursor,
        cursor,
        connection: undefined,
        epoch: 0,
        backlog: 0,
        live: false,
        held: [],
        tail: Promise.resolve(),
      };
      this.#channels.set(channelId, channel);
    }
    return channel;
  }

  async #listen(channel: ChannelState, connection: WireConnection): Promise<void> {
    for (let frame = await connection.receive(); frame !== undefined; frame = await connection.receive()) {
      const { batch, goLive, goodbye } = frame;
      if (batch !== undefined) this.#soon(channel, () => this.#take(channel, batch));
      else if (goLive !== undefined) {
        this.#soon(channel, async () => {
          await this.#drain(channel);
          channel.live = true;
          this.#ack(channel);
        });
      } else if (goodbye !== undefined) {
        this.#soon(channel, async () => {
          const { epoch, number } = channel.cursor;
          connection.send({ goodbye: { epoch: String(epoch), number: String(number) } });
          connection.end();
        });
      }
    }
    if (channel.connection === connection) channel.connection = undefined;
  }

  #soon(channel: ChannelState, work: () => Promise<void>): void {
    if (!this.#stopped) channel.tail = channel.tail.then(work);
  }

  /** So that the end waits for it. */
  async #underWay<T>(lookup: Promise<T>): Promise<T> {
    this.#lookups.add(lookup);
    try {
      return await lookup;
    } finally {
      this.#lookups.delete(lookup);
    }
  }

  async #take(channel: ChannelState, batch: FrameJson): Promise<void> {
    for (const message of messagesOf(batch)) {
      if (message.position === undefined) this.#handle({ ...message, sender: channel.sender });
      else if (isAfter(message.position, channel.watermark)) channel.held.push(message);
    }
    this.#release(channel);
    if (channel.held.length > 0) {
      await this.#drain(channel);
      const next = channel.held[0]?.position;
      if (next !== undefined && next.epoch === channel.watermark.epoch && next.number > channel.watermark.number + 1) {
        this.#gaps.push(`${channel.watermark.number + 1} to ${next.number - 1} of ${channel.sender}`);
        channel.watermark = { epoch: next.epoch, number: next.number - 1 };
        this.#release(channel);
      }
    }
    await this.#commit(channel);
  }

  /** Accepts what is held and in order. */
  #release(channel: ChannelState): void {
    for (let message = channel.held[0]; message?.position !== undefined; message = channel.held[0]) {
      const { epoch, number } = message.position;
      if (isAfter(message.position, channel.watermark)) {
        if (epoch !== channel.watermark.epoch || number !== channel.watermark.number + 1) return;
        channel.watermark = message.position;
        this.#handle({ ...message, sender: channel.sender });
      }
      channel.held.shift();
    }
  }

  /** Takes stored messages until none is left, and commits them. */
  async #drain(channel: ChannelState): Promise<void> {
    for (;;) {
      const { rows, left } = await this.#store.drainAfter(channel.channelId, channel.watermark);
      for (const row of rows) {
        channel.watermark = { epoch: row.epoch, number: row.number };
        this.#handle({ ...messageOfRow(row), sender: channel.sender });
      }
      channel.backlog = left;
      if (rows.length > 0) await this.#commit(channel);
      if (left === 0) break;
    }
    this.#release(channel);
  }

  /** Moves the cursor to the watermark, since everything accepted is handled; only then acknowledges. */
  async #commit(channel: ChannelState): Promise<void> {
    if (!isAfter(channel.watermark, channel.cursor) || channel.watermark.number === 0) return;
    const result = await this.#store.commit(channel.channelId, channel.watermark);
    if (result !== "committed") throw new Error(`the cursor was not committed: ${result}`);
    channel.cursor = channel.watermark;
    this.#ack(channel);
  }

  #ack({ connection, cursor, backlog, live }: ChannelState): void {
    connection?.send({
      ack: {
        epoch: String(cursor.epoch),
        number: String(cursor.number),
        credit: String(creditBytes),
        backlog: String(backlog),
        live,
      },
    });
  }
}

function refuse(code: string, message: string): Decision {
  return { refuse: { code: `ERROR_CODE_${code}`, message } };
}

function isAfter(a: Position, b: Position): boolean {
  return a.epoch > b.epoch || (a.epoch === b.epoch && a.number > b.number);
}
