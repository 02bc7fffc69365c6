/** Connection of a sender's channel to its listener. Dials again after each failure, with an increasing delay. */

import type { Ack, Answer, Goodbye } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { asHawserError, HawserError } from "../../../foundation/errors/index.js";
import { Backoff } from "../../../foundation/runtime/index.js";
import type { OutgoingMessage, SenderChannel } from "../../channel/index.js";
import { type Dialled, dial, type SenderConnection, type SenderHandlers } from "../../transport/index.js";
import type { PeerContext } from "../core/context.js";
import type { LinkRequests } from "./link-requests.js";

/** Delay before the first dial after a failure. It doubles with each failure. */
export const reconnectMinMs = 100;
/** Maximum delay between dials. */
const reconnectMaxMs = 3_000;

/** Address of a listener and its message limit. */
export interface ListenerAddress {
  /** Undefined while the listener is not in the directory. */
  readonly addr: string | undefined;
  readonly maxMessageBytes: number;
}

/** Channel at the time when its link is created. */
export interface DialledChannel {
  readonly listenerName: string;
  /** Topic for status events: the one through which the listener was found first. */
  readonly topic: string;
  readonly channelId: number;
  readonly address: ListenerAddress;
}

/** Share of each delay that is random. */
const jitter = 0.5;

export class ListenerDial implements SenderHandlers {
  /** Established connection. */
  connection: SenderConnection | undefined;
  channelId: number;
  #address: ListenerAddress;
  #dialling: AbortController | undefined;
  #redial: NodeJS.Timeout | undefined;
  readonly #backoff = new Backoff({
    minMs: reconnectMinMs,
    maxMs: reconnectMaxMs,
    jitter,
  });
  /** Number of consecutive refusals of the mesh secret by the listener. */
  #refusedSecrets = 0;
  /** False after a move to another database server, until the channel's id there is known. */
  #keyIsKnown = true;
  /** True after the first connection. */
  #wasConnected = false;
  #stopped = false;

  readonly #context: PeerContext;
  readonly #dialled: DialledChannel;
  readonly #channel: SenderChannel<OutgoingMessage>;
  readonly #requests: LinkRequests;
  readonly #onEvent: () => void;

  /**
   * @param channel notified of every connection and its end, except after {@link forgetKey} and {@link close}
   * @param requests notified of every connection and its end
   * @param onEvent called after each event that may have changed the channel's deadline
   */
  constructor(
    context: PeerContext,
    dialled: DialledChannel,
    channel: SenderChannel<OutgoingMessage>,
    requests: LinkRequests,
    onEvent: () => void,
  ) {
    this.#context = context;
    this.#dialled = dialled;
    this.#channel = channel;
    this.#requests = requests;
    this.#onEvent = onEvent;
    this.channelId = dialled.channelId;
    this.#address = dialled.address;
  }

  start(): void {
    this.#connect();
  }

  /** True while an attempt to connect is running. */
  get isDialling(): boolean {
    return this.#dialling !== undefined;
  }

  /** Maximum payload that the listener accepts, as last reported. */
  get maxMessageBytes(): number {
    return this.connection?.maxMessageBytes ?? this.#address.maxMessageBytes;
  }

  /** Updates the address of the listener, undefined if it has left the directory. */
  relocate(address: ListenerAddress): void {
    const moved = address.addr !== this.#address.addr;
    this.#address = address;
    if (address.addr === undefined) return;
    // The listener itself published the new address; the old connection may stay half-open for a long time.
    const { connection } = this;
    if (moved && connection !== undefined) {
      this.drop(connection, new HawserError("connection_lost", "the listener has a new address"));
    }
    if (this.connection !== undefined) return;
    if (moved) this.#dialling?.abort();
    if (moved || this.#dialling === undefined) this.connectNow();
  }

  /** Dials without delay, unless there is a connection. */
  connectNow(): void {
    if (this.connection !== undefined) return;
    clearTimeout(this.#redial);
    this.#backoff.reset();
    this.#connect();
  }

  /** Ends the connection and stops dialling until {@link rekey}. */
  forgetKey(): void {
    this.#keyIsKnown = false;
    this.#dialling?.abort();
    this.connection?.destroy();
    this.connection = undefined;
    this.#requests.onClosed();
  }

  /** Sets the channel's id in the current database. */
  rekey(channelId: number): void {
    const isNew = channelId !== this.channelId || !this.#keyIsKnown;
    this.channelId = channelId;
    this.#keyIsKnown = true;
    if (!isNew) return;
    const { connection } = this;
    if (connection !== undefined) {
      this.drop(connection, new HawserError("connection_lost", "the id of the channel has changed"));
    }
    this.connectNow();
  }

  /** Says Goodbye and stops dialling. */
  close(): void {
    this.#stopped = true;
    clearTimeout(this.#redial);
    this.#dialling?.abort();
    const { connection } = this;
    this.connection = undefined;
    this.#requests.onClosed();
    if (connection === undefined) return;
    connection.writeGoodbye();
    connection.end();
    setTimeout(() => connection.destroy(), reconnectMinMs).unref();
  }

  /** Ends a connection, if it is still the current one. */
  drop(connection: SenderConnection, why: HawserError): void {
    if (connection !== this.connection) return;
    connection.destroy();
    this.onClosed(why, connection);
  }

  #connect(): void {
    if (this.#stopped || this.#dialling !== undefined || this.connection !== undefined) return;
    const context = this.#context;
    const { addr } = this.#address;
    // A Hello needs the current epoch, which is uncertain without the lease: after a failover of the database an older
    // epoch may be current again.
    const canDial = context.lease.state === "held" && this.#keyIsKnown;
    if (addr === undefined || !canDial) {
      this.#channel.onDialFailed(performance.now());
      this.#requests.onUnreachable(
        canDial ? "it has no address" : `the lease of the name "${context.lease.name}" is suspended`,
      );
      this.#onEvent();
      // An address comes with `relocate`.
      if (!canDial) this.#redialLater();
      return;
    }
    const dialling = new AbortController();
    this.#dialling = dialling;
    this.#channel.onDialling();
    dial({
      address: addr,
      identity: {
        senderName: context.sender.name,
        sourceTopic: context.sender.sourceTopic,
        listenerName: this.#dialled.listenerName,
        channelId: this.channelId,
        epoch: this.#channel.epoch,
      },
      maxAnswerBytes: context.settings.maxMessageBytes,
      secret: context.secrets.toDial(this.#refusedSecrets),
      tls: context.tls,
      allowPlaintext: context.settings.allowPlaintext,
      signal: dialling.signal,
      handlers: this,
    })
      .then(
        (dialled) => {
          if (this.#dialling === dialling) this.#dialling = undefined;
          if (!this.#stopped && !dialling.signal.aborted) this.#established(dialled);
          else {
            dialled.connection.destroy();
            this.#connect();
          }
        },
        (error: HawserError) => {
          if (this.#dialling === dialling) this.#dialling = undefined;
          if (!this.#stopped) this.#dialFailed(addr, error, dialling.signal.aborted);
        },
      )
      .catch((error) => this.#failed(error));
  }

  /** Reports a defect, which the next dial may not meet. */
  #failed(thrown: unknown): void {
    const error = asHawserError(thrown);
    const { listenerName: peer, topic } = this.#dialled;
    this.#context.status.report({ kind: "sender_send_error", topic, peer, message: error.message, error });
    this.#redialLater();
  }

  #established({ connection, welcome }: Dialled): void {
    this.connection = connection;
    if (this.#wasConnected) this.#context.counters.reconnects += 1;
    this.#wasConnected = true;
    this.#backoff.reset();
    this.#refusedSecrets = 0;
    const { listenerName: peer, topic } = this.#dialled;
    const message = `connected to "${peer}" at ${this.#address.addr}`;
    this.#context.status.report({ kind: "peer_connected", topic, peer, message });
    this.#channel.onConnected(connection, welcome, performance.now());
    this.#requests.onConnected(connection);
    this.#onEvent();
  }

  #dialFailed(addr: string, error: HawserError, aborted: boolean): void {
    this.#channel.onDialFailed(performance.now());
    if (!aborted) this.#requests.onUnreachable(error.message);
    this.#onEvent();
    if (aborted) {
      this.#connect();
      return;
    }
    if (error.code === "unauthenticated") this.#refusedSecrets += 1;
    if (error.code !== "connection_lost") {
      const { listenerName: peer, topic } = this.#dialled;
      const message = `${addr}: ${error.message}`;
      this.#context.status.report({ kind: "sender_send_error", topic, peer, message, error });
    }
    this.#afterRefusal(error);
    this.#redialLater();
  }

  /** Reads the mesh secrets or the epoch again, if the listener has refused them. */
  #afterRefusal({ code }: HawserError): void {
    const { secrets, logger } = this.#context;
    if (code === "unauthenticated") {
      secrets.refresh().catch((err) => logger.debug({ err }, "could not read the mesh secrets again; dialling again"));
    } else if (code === "fenced") {
      void this.#context.checkEpoch(`"${this.#dialled.listenerName}" rejected an old epoch`);
    }
  }

  // ---- events of the connection ----

  onAck(ack: Ack, connection: SenderConnection): void {
    this.#channel.onAck(connection, ack, performance.now());
    this.#onEvent();
  }

  onAnswer(answer: Answer, connection: SenderConnection): void {
    if (connection === this.connection) this.#requests.onAnswer(answer);
  }

  onGoodbye(goodbye: Goodbye, connection: SenderConnection): void {
    this.#channel.onGoodbye(connection, goodbye, performance.now());
    this.#onEvent();
    connection.end();
  }

  onDrain(connection: SenderConnection): void {
    this.#channel.onWritable(connection, performance.now());
    if (connection === this.connection) this.#requests.onDrain();
    this.#onEvent();
  }

  onClosed(error: HawserError | undefined, connection: SenderConnection): void {
    if (connection !== this.connection) return;
    this.connection = undefined;
    if (this.#stopped) return;
    const { listenerName: peer, topic } = this.#dialled;
    const message = error === undefined ? `"${peer}" said goodbye` : error.message;
    this.#context.status.report({ kind: "peer_disconnected", topic, peer, message });
    if (error?.code === "fenced") this.#afterRefusal(error);
    this.#channel.onClosed(connection, performance.now());
    this.#requests.onClosed();
    this.#onEvent();
    this.#redialLater();
  }

  #redialLater(): void {
    if (this.#stopped) return;
    clearTimeout(this.#redial);
    this.#redial = setTimeout(() => this.#connect(), this.#backoff.failed());
  }
}
