/** Destinations of messages, and the types of the messages that they take. */
import type { DescMessage, MessageInitShape } from "@bufbuild/protobuf";
import type { InputOf, SchemaTopic } from "../../../foundation/payloads/index.js";
import type { AnyJson, Json, Sendable } from "./content.js";

/**
 * Map of topics to the types of their messages, the type argument of a `Peer`. A message is text, bytes, or an object
 * that JSON gives back as it was: a `Date`, for instance, would come back as a string.
 */
export type TopicMap<Topics> = {
  readonly [Topic in keyof Topics]: Topics[Topic] extends string | Uint8Array
    ? Topics[Topic]
    : object & Json<Topics[Topic]>;
};

/** Map of a peer that takes any topic, with any payload. */
export type AnyTopics = Record<string, AnyJson>;

/** Destination among peers: a topic of the map, a Protobuf schema whose option names a topic, or a topic with its schema. */
export type Destination<Topics = AnyTopics> = (keyof Topics & string) | DescMessage | SchemaTopic;

/** NATS subject as the destination of a message. */
export interface NatsSubject {
  /** Tokens separated by `.`, without wildcards. 1 to 1,024 bytes. */
  readonly subject: string;
  /**
   * Publishes to a JetStream stream, which stores the message exactly once. Default: false, which publishes to core
   * NATS at least once.
   */
  readonly stream?: boolean | undefined;
  /** JetStream domain; needs `stream: true`. Default: the option `domain` of the NATS server. */
  readonly domain?: string | undefined;
}

/** Payload for a destination. @template Given type of the payload that is given, if the destination takes any */
export type PayloadFor<To, Given, Topics = AnyTopics> = To extends DescMessage
  ? MessageInitShape<To>
  : To extends SchemaTopic<infer Schema>
    ? Json<InputOf<Schema>>
    : To extends keyof Topics
      ? unknown extends Topics[To]
        ? Sendable<Given>
        : Topics[To]
      : Sendable<Given>;
