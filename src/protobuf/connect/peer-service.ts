/** Services over peers: a request handler for the topic of each service. */
import { Code, ConnectError, type ContextKey, createContextKey } from "@connectrpc/connect";
import { limits } from "../../../generated/ts/rules/peer/frames.js";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { checkOptionNames, namesOf } from "../../foundation/errors/index.js";
import { type Logger, silentLogger } from "../../foundation/runtime/index.js";
import type { Message, Subscription, TransactionalMessage } from "../../jobs-and-peers/peer/index.js";
import { answerCall, type CallSource, errorAnswer, type IncomingCall, type OutgoingAnswer } from "./answer-call.js";
import { firstValue, type HeaderPairs } from "./headers.js";
import { methodName } from "./peer-transport.js";
import { collectRoutes, type Route, type RouteOptions, type Routes, routeOptions } from "./routes.js";

/** Options of {@link servePeer}. */
export interface ServePeerOptions extends RouteOptions {
  /**
   * Topic of all services; callers need the same one. Default: the name of each service, such as `acme.v1.Warehouse`.
   */
  readonly topic?: string | undefined;
  /**
   * Runs each handler in a Postgres transaction, whose client {@link peerMessage} provides; an error rolls it back.
   * Default: false.
   */
  readonly transactional?: boolean | undefined;
  /**
   * Receiver of log entries, such as a pino logger; it gets the causes of failed calls, which callers do not see.
   * Default: no logging.
   */
  readonly logger?: Logger | undefined;
}

/** Methods of a `Peer` that serving needs. */
interface ServingPeer {
  respond(
    topic: string,
    options: { readonly transactional?: boolean },
    handler: (request: Message) => unknown,
  ): Promise<Subscription>;
}

/** Return value of a request handler. */
interface AnswerToSend {
  readonly payload: Uint8Array;
  readonly headers: HeaderPairs;
  readonly rollBack: boolean;
}

/** Received request as a call. */
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
 * Context key of the message of a call over peers: `context.values.get(peerMessage)` in a handler. The message has the
 * name of the caller, and the client of the transaction if the service is transactional.
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

const optionNames = namesOf<ServePeerOptions>({ topic: true, transactional: true, logger: true, ...routeOptions });

/**
 * Serves the methods that the routes register. Takes effect at once, or at the next start of the peer.
 *
 * @returns subscription, whose `stop()` ends the services; running calls are still answered, and the peer keeps running
 * @throws HawserError (as a rejection) `invalid_argument`, and the errors of `peer.respond`
 */
export async function servePeer(
  peer: ServingPeer,
  routes: Routes,
  options: ServePeerOptions = {},
): Promise<Subscription> {
  checkOptionNames(options, "a service between peers", optionNames);
  const { topic, transactional = false, logger = silentLogger, ...ofRoutes } = options;
  const byTopic = new Map<string, Map<string, Route>>();
  for (const route of collectRoutes(routes, ofRoutes)) {
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
    if (cause !== undefined) logger.error({ method: name, err: cause }, "an RPC handler failed");
    return toSend(answer);
  };
  return (message) => {
    const call = new PeerCall(message);
    const name = firstValue(call.headers, rpcConstants.methodHeader);
    const route = name === undefined ? undefined : methods.get(name);
    if (name === undefined || route === undefined) {
      const text =
        name === undefined
          ? `the request to "${message.topic}" has no header ${rpcConstants.methodHeader}`
          : `"${message.topic}" has no method ${name}`;
      return toSend(errorAnswer(new ConnectError(`${text}; it has ${[...methods.keys()]}`, Code.Unimplemented)));
    }
    const answer = answerCall(route, call, peers);
    return answer instanceof Promise ? answer.then((later) => answered(later, name)) : answered(answer, name);
  };
}

/**
 * Converts an answer. An error rolls back the handler's transaction. Headers beyond the limits of peers become an
 * error.
 */
function toSend(answer: OutgoingAnswer): AnswerToSend {
  const { headers: count } = limits.Answer;
  const { maxBytes } = limits.Header.value;
  if (answer.pairs.length > count.maxItems) {
    const text = `the answer has ${answer.pairs.length} headers; peers carry at most ${count.maxItems}`;
    return toSend(errorAnswer(new ConnectError(text, Code.ResourceExhausted)));
  }
  const long = answer.pairs.find((pair) => Buffer.byteLength(pair[1]) > maxBytes);
  if (long !== undefined) {
    const bytes = Buffer.byteLength(long[1]);
    const text = `header ${long[0]} of the answer has ${bytes} bytes; peers carry at most ${maxBytes}`;
    return toSend(errorAnswer(new ConnectError(text, Code.ResourceExhausted)));
  }
  return { payload: answer.payload, headers: answer.pairs, rollBack: answer.error !== undefined };
}
