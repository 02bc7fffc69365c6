/**
 * A listener and so many senders, in processes of their own, on a database of their own.
 */
import { BenchFailure } from "../bench-failure.js";
import { Worker } from "../worker.js";
import type { ListeningRequests } from "./listening-process.js";
import type { SendingRequests } from "./sending-process.js";

const topic = "bench-listener";

/** Processes for the senders: as many as there are, up to so many. */
const maxSendingProcesses = 2;

/** Messages unconfirmed at a time, altogether and on one channel: less than a sender's default limits allow. */
const inFlightAltogether = 262_144;
const inFlightOfChannel = 8_192;
const minInFlightOfChannel = 32;

/** How long the listener waits for the rest when the senders are done. */
const arrivalTimeoutMs = 10_000;

/** What was found with one load. */
export interface MeshCost {
  readonly seconds: number;
  readonly messages: number;
  readonly listenerStatements: number;
  readonly senderStatements: number;
  /** Bytes. */
  readonly rss: number;
  readonly heap: number;
  readonly stored: number;
}

/** A running one. */
export class ChannelMesh {
  readonly #channels: number;
  readonly #listening: Worker<ListeningRequests>;
  readonly #sending: readonly Worker<SendingRequests>[];

  private constructor(
    channels: number,
    listening: Worker<ListeningRequests>,
    sending: readonly Worker<SendingRequests>[],
  ) {
    this.#channels = channels;
    this.#listening = listening;
    this.#sending = sending;
  }

  /** Starts it; all channels are live then. Nothing is left behind when it fails. */
  static async start(databaseUrl: string, channels: number, signal: AbortSignal): Promise<ChannelMesh> {
    const listeningProgram = new URL("./listening-process.ts", import.meta.url);
    const sendingProgram = new URL("./sending-process.ts", import.meta.url);
    const listening = Worker.start<ListeningRequests>("listening", listeningProgram, { signal });
    const sending = Array.from({ length: Math.min(channels, maxSendingProcesses) }, () =>
      Worker.start<SendingRequests>("sending", sendingProgram, { signal }),
    );
    const mesh = new ChannelMesh(channels, listening, sending);
    try {
      await listening.request("open", { databaseUrl, topic });
      await mesh.#openSenders(databaseUrl);
      return mesh;
    } catch (error) {
      await mesh.stop();
      throw error;
    }
  }

  /** Sends about so many messages, as many on each channel. @throws BenchFailure if not all of them arrive */
  async send(about: number, payloadBytes: number): Promise<MeshCost> {
    const perChannel = Math.max(1, Math.round(about / this.#channels));
    const messages = perChannel * this.#channels;
    const inFlight = Math.max(
      minInFlightOfChannel,
      Math.min(inFlightOfChannel, Math.floor(inFlightAltogether / this.#channels)),
    );
    await this.#listening.request("expect", messages);
    const sent = await Promise.all(
      this.#sending.map((each) => each.request("send", { payloadBytes, messages: perChannel, inFlight })),
    );
    const arrived = await this.#listening.request("arrived", arrivalTimeoutMs);
    if (arrived.completeMs === undefined) {
      throw new BenchFailure(`${this.#channels} channels: ${arrived.messages} of ${messages} messages have arrived`);
    }
    const beganMs = Math.min(...sent.map((each) => each.beganMs));
    const doneMs = Math.max(arrived.completeMs, ...sent.map((each) => each.doneMs));
    return {
      seconds: (doneMs - beganMs) / 1000,
      messages,
      listenerStatements: arrived.statements,
      senderStatements: sent.reduce((sum, { statements }) => sum + statements, 0),
      rss: arrived.rss,
      heap: arrived.heap,
      stored: sent.reduce((sum, { stored }) => sum + stored, 0),
    };
  }

  /** Ends all processes, the senders first. */
  async stop(): Promise<void> {
    await Promise.all(this.#sending.map((each) => each.stop()));
    await this.#listening.stop();
  }

  async #openSenders(databaseUrl: string): Promise<void> {
    const each = Math.ceil(this.#channels / this.#sending.length);
    await Promise.all(
      this.#sending.map((process, index) => {
        const first = index * each;
        return process.request("open", { databaseUrl, topic, first, count: Math.min(each, this.#channels - first) });
      }),
    );
  }
}
