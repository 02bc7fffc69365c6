import type { OutgoingMessage, SenderChannel } from "../channel/index.js";
import type { SenderConnection } from "../transport/index.js";
import type { AckFrame, GoodbyeFrame, WelcomeFields } from "../wire/index.js";

/** Who hears of the connection. One that was destroyed here is heard of no more. */
export interface DialEvents {
  /** The sender's epoch, for the Hello. */
  readonly epoch: number;
  onDialling(): void;
  /** The listener cannot be reached now. */
  onDialFailed(): void;
  onConnected(connection: SenderConnection, welcome: WelcomeFields): void;
  onAck(connection: SenderConnection | undefined, ack: AckFrame): void;
  onGoodbye(connection: SenderConnection | undefined, goodbye: GoodbyeFrame): void;
  onWritable(connection: SenderConnection | undefined): void;
  onClosed(connection: SenderConnection): void;
}

/** Hands the events of the connection to a channel. @param after called behind each that may have moved its deadline */
export function dialEventsOf(channel: SenderChannel<OutgoingMessage>, after: () => void): DialEvents {
  return {
    get epoch() {
      return channel.epoch;
    },
    onDialling: () => channel.onDialling(),
    onDialFailed() {
      channel.onDialFailed(performance.now());
      after();
    },
    onConnected(connection, { cursorEpoch, cursor, backlog, credit }) {
      const { maxMessageBytes } = connection;
      const welcome = { cursor: { epoch: cursorEpoch, number: cursor }, backlog, credit, maxMessageBytes };
      channel.onConnected(connection, welcome, performance.now());
      after();
    },
    onAck(connection, { epoch, number, credit, backlog, busy, live }) {
      channel.onAck(connection, { cursor: { epoch, number }, credit, backlog, busy, live }, performance.now());
      after();
    },
    onGoodbye(connection, { epoch, number }) {
      channel.onGoodbye(connection, { epoch, number }, performance.now());
      after();
    },
    onWritable(connection) {
      channel.onWritable(connection, performance.now());
      after();
    },
    onClosed(connection) {
      channel.onClosed(connection, performance.now());
      after();
    },
  };
}
