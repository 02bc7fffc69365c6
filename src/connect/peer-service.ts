/**
 * Services between peers: a handler for the topic of each service.
 */
import { Code, ConnectError, type ContextKey, createContextKey } from "@connectrpc/connect";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import { namesOf } from "../errors/index.js";
import type { Message, Subscription, TransactionalMessage } from "../peer/index.js";
import { type Logger, silentLogger } from "../runtime/index.js";
import { answerCall, type CallSource, errorAnswer, type IncomingCall, type OutgoingAnswer } from "./answer-call.js";
import { firstValue, type HeaderPairs } from "./headers.js";
import { checkOptionNames } from "./option-checks.js";
import { methodName } from "./peer-transport.js";
import { collectRoutes, type Route, type RouteOptions, type Routes, routeOptionNames } from "./routes.js";

/** How services are served between peers. */
export interface ServePeerOptions extends RouteOptions {
  /** One topic for all services; callers name it too. Default: of each service its name, `acme.v1.Warehouse`. */
  readonly topic?: string | undefined;
  /**
   * Each handler runs in a transaction of Postgres, whose client is that of {@link peerMessage}; an error rolls it back.
   * Default false.
   */
  readonly transactional?: boolean | undefined;
  /** Hears what callers are not told: why a handler failed. Default: says nothing; a pino logger fits. */
  readonly logger?: Logger | undefined;
}

/** Methods of a `Peer` that services need. */
interface ServingPeer {
  respond(
    topic: string,
    options: { readonly transactional?: boolean },
    handler: (request: Message) => unknown,
  ): Promise<Subscription>;
}

/** Answer of a handler of requests. */
interface AnswerToSend {
  readonly payload: Uint8Array;
  readonly headers: HeaderPairs;
  readonly rollBack: boolean;
}

/** A request as a call. */
class PeerCall implements IncomingCall {
  readonly message: TransactionalMessage;
  readonly headers: HeaderPairs;

  constructor(message: Message) {
    this.message = message as TransactionalMessage;
    this.headers = [...message.headers];
  }

  get payload(): Uint8Array {
    return this.message.payload;
  }

  get signal(): AbortSignal {
    return this.message.signal;
  }
}

/**
 * In a handler between peers, `context.values.get(peerMessage)` is the message that its call came by: it says who calls,
 * and has the client of the transaction if the service is transactional.
 */
export const peerMessage: ContextKey<TransactionalMessage | undefined> = createContextKey<
  TransactionalMessage | undefined
>(undefined, {
  description: "hawser: the message of a peer",
});

const peers: CallSource<PeerCall> = {
  scheme: "peer",
  prepare: (values, { message }) => values.set(peerMessage, message),
};

const optionNames: readonly string[] = [
  ...namesOf<Omit<ServePeerOptions, keyof RouteOptions>>({ topic: true, transactional: true, logger: true }),
  ...routeOptionNames,
];

/**
 * Answers calls to the methods that the routes register, from now on or from the peer's next start.
 *
 * @returns ends the services: calls that run are still answered, and the peer goes on
 * @throws HawserError (as a rejection) `invalid_argument`
 * @throws HawserError (as a rejection) as `peer.respond` does
 */
export async function servePeer(
  peer: ServingPeer,
  routes: Routes,
  options: ServePeerOptions = {},
): Promise<Subscription> {
  checkOptionNames(options, "a service between peers", optionNames);
  const { topic, transactional = false, logger = silentLogger, ...routeOptions } = options;
  const byTopic = new Map<string, Map<string, Route>>();
  for (const route of collectRoutes(routes, routeOptions)) {
    const name = topic ?? route.method.parent.typeName;
    if (!byTopic.has(name)) byTopic.set(name, new Map());
    byTopic.get(name)!.set(methodName(route.method), route);
  }
  const topics = [...byTopic.keys()];
  const parts: Subscription[] = [];
  for (const [name, methods] of byTopic) {
    parts.push(await peer.respond(name, { transactional }, handlerOf(methods, logger)));
  }
  const closed = Promise.all(parts.map((part) => part.closed)).then(() => undefined);
  const stop = async (): Promise<void> => {
    await Promise.all(parts.map((part) => part.stop()));
  };
  return { topics, closed, stop, [Symbol.asyncDispose]: stop };
}

function handlerOf(
  methods: ReadonlyMap<string, Route>,
  logger: Logger,
): (message: Message) => AnswerToSend | Promise<AnswerToSend> {
  const answered = (answer: OutgoingAnswer, name: string): AnswerToSend => {
    const cause = answer.error?.cause;
    if (cause !== undefined) logger.error({ method: name, err: cause }, "a handler of RPC failed");
    return toSend(answer);
  };
  return (message) => {
    const call = new PeerCall(message);
    const name = firstValue(call.headers, rpcConstants.methodHeader);
    const route = name === undefined ? undefined : methods.get(name);
    if (name === undefined || route === undefined) {
      const words =
        name === undefined
          ? `the request to "${message.topic}" has no header ${rpcConstants.methodHeader}`
          : `"${message.topic}" has no method ${name}`;
      return toSend(errorAnswer(new ConnectError(`${words}; it has ${[...methods.keys()]}`, Code.Unimplemented)));
    }
    const answer = answerCall(route, call, peers);
    return answer instanceof Promise ? answer.then((later) => answered(later, name)) : answered(answer, name);
  };
}

/** An error leaves nothing of what the handler wrote in its transaction. Headers that peers do not carry become an error. */
function toSend(answer: OutgoingAnswer): AnswerToSend {
  const { headers: count } = limits.Answer;
  const { maxBytes } = limits.Header.value;
  if (answer.pairs.length > count.maxItems) {
    const words = `the answer has ${answer.pairs.length} headers; between peers it has at most ${count.maxItems}`;
    return toSend(errorAnswer(new ConnectError(words, Code.ResourceExhausted)));
  }
  const long = answer.pairs.find((pair) => Buffer.byteLength(pair[1]) > maxBytes);
  if (long !== undefined) {
    const bytes = Buffer.byteLength(long[1]);
    const words = `header ${long[0]} of the answer has ${bytes} bytes; between peers it has at most ${maxBytes}`;
    return toSend(errorAnswer(new ConnectError(words, Code.ResourceExhausted)));
  }
  return { payload: answer.payload, headers: answer.pairs, rollBack: answer.error !== undefined };
}
