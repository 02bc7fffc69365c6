import type { ChannelWelcome, OutgoingMessage, SenderChannel } from "../channel/index.js";
import type { SenderConnection } from "../transport/index.js";
import type { Ack, Goodbye } from "../wire/index.js";

/** Who hears of the connection. One that was destroyed here is heard of no more. */
export interface DialEvents {
  /** The sender's epoch, for the Hello. */
  readonly epoch: number;
  onDialling(): void;
  /** The listener cannot be reached now. */
  onDialFailed(): void;
  onConnected(connection: SenderConnection, welcome: ChannelWelcome): void;
  onAck(connection: SenderConnection | undefined, ack: Ack): void;
  onGoodbye(connection: SenderConnection | undefined, goodbye: Goodbye): void;
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
    onConnected(connection, welcome) {
      channel.onConnected(connection, welcome, performance.now());
      after();
    },
    onAck(connection, ack) {
      channel.onAck(connection, ack, performance.now());
      after();
    },
    onGoodbye(connection, goodbye) {
      channel.onGoodbye(connection, goodbye, performance.now());
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
