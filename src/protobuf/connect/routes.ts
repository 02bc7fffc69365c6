/** Routes of a service: the methods that the user registers, with their options. */
import type { DescMethod, DescMethodUnary } from "@bufbuild/protobuf";
import {
  type ConnectRouter,
  type ConnectRouterOptions,
  createConnectRouter,
  createMethodImplSpec,
  createServiceImplSpec,
  type MethodImplSpec,
} from "@connectrpc/connect";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";
import { invalidArgument } from "../../foundation/errors/index.js";
import { formatsOf, type SizeLimit } from "./message-format.js";
import { streamRefused } from "./transport.js";

/** Function that registers services, the same as for Connect's HTTP adapters. */
export type Routes = (router: ConnectRouter) => unknown;

/**
 * Options of Connect that services over Hawser support. `router.service` and `router.rpc` accept them for a single
 * service or method, too.
 */
export type RouteOptions = Pick<
  ConnectRouterOptions,
  | "interceptors"
  | "jsonOptions"
  | "binaryOptions"
  | "readMaxBytes"
  | "writeMaxBytes"
  | "maxTimeoutMs"
  | "requestGate"
  | "shutdownSignal"
>;

/** Names of the options of routes, for `namesOf`. */
export const routeOptions = {
  interceptors: true,
  jsonOptions: true,
  binaryOptions: true,
  readMaxBytes: true,
  writeMaxBytes: true,
  maxTimeoutMs: true,
  requestGate: true,
  shutdownSignal: true,
} as const;

/** Registered method. */
export interface Route {
  readonly method: DescMethod;
  /** Implementation of a unary method; calls of streaming methods are rejected. */
  readonly implementation: UnaryImplementation;
  readonly options: RouteOptions;
  readonly formats: ReturnType<typeof formatsOf>;
  readonly readLimit: SizeLimit;
  readonly writeLimit: SizeLimit;
}

type UnaryImplementation = (MethodImplSpec & { kind: "unary" })["impl"];

/**
 * Collects the routes that the user's function registers.
 *
 * A router of Connect gets the same methods, so that it validates their options. Its HTTP handlers are not used, because
 * they need several times as long for a call as `answer-call.ts`.
 *
 * @throws HawserError `invalid_argument` if no method is registered, or a method is registered twice
 */
export function collectRoutes(routes: Routes, options: RouteOptions): readonly Route[] {
  if (typeof routes !== "function") {
    throw invalidArgument("routes must be a function: (router) => router.service(Service, { … })");
  }
  const collected = new Map<string, Route>();
  const http = createConnectRouter(options);
  const add = (spec: MethodImplSpec, own: RouteOptions = {}): void => {
    const { method } = spec;
    const name = `${method.parent.typeName}.${method.name}`;
    if (collected.has(name)) {
      throw invalidArgument(`the routes register ${name} twice; leave one of them out`);
    }
    const both = { ...options, ...own };
    const { readMaxBytes = rpcConstants.maxMessageBytes, writeMaxBytes = rpcConstants.maxMessageBytes } = both;
    collected.set(name, {
      method,
      implementation: spec.kind === "unary" ? spec.impl : () => Promise.reject(streamRefused(spec.method as never)),
      options: both,
      formats: formatsOf(both),
      readLimit: { name: "readMaxBytes", bytes: readMaxBytes },
      writeLimit: { name: "writeMaxBytes", bytes: writeMaxBytes },
    });
  };
  const router: ConnectRouter = {
    handlers: http.handlers,
    service(service, implementation, own) {
      http.service(service, implementation, own);
      for (const spec of Object.values(createServiceImplSpec(service, implementation).methods)) add(spec, own);
      return router;
    },
    rpc(method, implementation, own) {
      http.rpc(method, implementation, own);
      add(createMethodImplSpec(method, implementation), own);
      return router;
    },
  };
  routes(router);
  if (collected.size === 0) {
    throw invalidArgument("the routes register no method; call router.service(Service, { … })");
  }
  return [...collected.values()];
}

/** Method of a route. Calls of a streaming method are rejected, so all answered methods are unary. */
export function unaryMethodOf({ method }: Route): DescMethodUnary {
  return method as DescMethodUnary;
}
