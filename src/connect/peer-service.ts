/**
 * Services between peers: a handler for the topic of each service.
 */
import { Code, ConnectError, type ContextKey, createContextKey } from "@connectrpc/connect";
import { limits } from "../../generated/ts/rules/peer/frames.js";
import { rpcConstants } from "../../generated/ts/settings/connect.js";
import { HawserError, namesOf, Reject } from "../errors/index.js";
import type { AnswerToSend, Handler, TransactionalMessage } from "../peer/index.js";
import { type Logger, silentLogger } from "../runtime/index.js";
import { answerCall, type CallSource, errorAnswer, type OutgoingAnswer } from "./answer-call.js";
import { firstValue } from "./headers.js";
import { checkOptionNames } from "./option-checks.js";
import { methodName } from "./peer-transport.js";
import { collectRoutes, type Route, type RouteOptions, type Routes, routeOptionNames } from "./routes.js";

/** How services are served between peers. */
export interface PeerServiceOptions extends RouteOptions {
  /** One topic for all services; callers name it too. Default: of each service its name, `acme.v1.Warehouse`. */
  readonly topic?: string | undefined;
  /** Hears what callers are not told: why a handler failed. Default: says nothing; a pino logger fits. */
  readonly logger?: Logger | undefined;
}

/** What services need of a `Peer`. */
export interface ServingPeer {
  subscribe(topic: string, handler: Handler): Promise<void>;
  unsubscribe(topic: string): Promise<void>;
}

/** Services that answer between peers. */
export interface PeerServer extends AsyncDisposable {
  /** Their topics. */
  readonly topics: readonly string[];
  /** Takes no more calls. What runs is still answered. The peer goes on. */
  stop(): Promise<void>;
}

/**
 * In a handler between peers, `context.values.get(peerMessage)` is the message that its call came by: it says who calls,
 * and has the client of the transaction if the peer is transactional.
 */
export const peerMessage: ContextKey<TransactionalMessage | undefined> = createContextKey<
  TransactionalMessage | undefined
>(undefined, {
  description: "hawser: the message of a peer",
});

const peers: CallSource<TransactionalMessage> = {
  scheme: "peer",
  prepare: (values, message) => values.set(peerMessage, message),
};

const optionNames: readonly string[] = [
  ...namesOf<Omit<PeerServiceOptions, keyof RouteOptions>>({ topic: true, logger: true }),
  ...routeOptionNames,
];

/**
 * Answers calls to the methods that the routes register. Serves their topics from now on or from the peer's next start; a
 * topic of services is for calls alone. A peer without a handler for other messages still needs `run()`.
 *
 * @throws HawserError (as a rejection) `invalid_argument`
 * @throws HawserError (as a rejection) as `peer.subscribe` does
 */
export async function servePeer(
  peer: ServingPeer,
  routes: Routes,
  options: PeerServiceOptions = {},
): Promise<PeerServer> {
  checkOptionNames(options, "a service between peers", optionNames);
  const { topic, logger = silentLogger, ...routeOptions } = options;
  const byTopic = new Map<string, Map<string, Route>>();
  for (const route of collectRoutes(routes, routeOptions)) {
    const name = topic ?? route.method.parent.typeName;
    if (!byTopic.has(name)) byTopic.set(name, new Map());
    byTopic.get(name)!.set(methodName(route.method), route);
  }
  const topics = [...byTopic.keys()];
  for (const [name, methods] of byTopic) await peer.subscribe(name, handlerOf(methods, logger));
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    for (const each of topics) {
      await peer.unsubscribe(each).catch(async (error: unknown) => {
        // The peer's own topic is served as long as it runs.
        if (!(error instanceof HawserError) || error.code !== "self_topic") throw error;
        await peer.subscribe(each, () =>
          toSend(errorAnswer(new ConnectError("the service has stopped", Code.Unavailable))),
        );
      });
    }
  };
  const stopOnce = () => (stopped ??= stop());
  return { topics, stop: stopOnce, [Symbol.asyncDispose]: stopOnce };
}

function handlerOf(
  methods: ReadonlyMap<string, Route>,
  logger: Logger,
): (message: TransactionalMessage) => AnswerToSend | Promise<AnswerToSend> {
  const answered = (answer: OutgoingAnswer, name: string): AnswerToSend => {
    const cause = answer.error?.cause;
    if (cause !== undefined) logger.error({ method: name, err: cause }, "a handler of RPC failed");
    return toSend(answer);
  };
  return (message) => {
    const { headers, to } = message;
    if (!message.isRequest) throw new Reject(`"${to}" is a topic of RPC: call it with a client, a message is no call`);
    const name = firstValue(headers, rpcConstants.methodHeader);
    const route = name === undefined ? undefined : methods.get(name);
    if (name === undefined || route === undefined) {
      const words =
        name === undefined
          ? `the request to "${to}" has no header ${rpcConstants.methodHeader}`
          : `"${to}" has no method ${name}`;
      return toSend(errorAnswer(new ConnectError(`${words}; it has ${[...methods.keys()]}`, Code.Unimplemented)));
    }
    const answer = answerCall(route, message, peers);
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
