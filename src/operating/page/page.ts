/** The operator's page as a handler of requests: its parts, their order, and the life of its connections. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { Hono } from "hono";
import { html } from "hono/html";
import { HawserError } from "../../foundation/errors/index.js";
import { sqlstateOf } from "../../foundation/postgres/index.js";
import { type Clock, silentLogger, systemClock } from "../../foundation/runtime/index.js";
import { urlsOrEnvironment } from "../../foundation/sql-clients/index.js";
import { statementLimits } from "../../jobs-and-peers/store/index.js";
import { Descriptors } from "../../protobuf/typed/index.js";
import { Glances, MassActions, Sampler, sections, Verdicts } from "../console/index.js";
import { deadLetters, openDatabase } from "../operate/index.js";
import { FormTokens } from "./forms.js";
import { refreshScript } from "./html/refresh.js";
import { icon, style } from "./html/style.js";
import { short } from "./html/text.js";
import { checkPageOptions, type PageOptions } from "./page-options.js";
import { protect, tooMuchUnsent } from "./protection.js";
import { auditRoutes } from "./routes/audit.js";
import { deadRoutes } from "./routes/dead.js";
import { jobRoutes } from "./routes/jobs.js";
import { listRoutes } from "./routes/lists.js";
import { messageRoutes } from "./routes/message.js";
import { overviewRoutes } from "./routes/overview.js";
import { Site } from "./routes/site.js";
import { subjectRoutes } from "./routes/subjects.js";
import { topicRoutes } from "./routes/topics.js";
import { UnsentAnswers } from "./unsent-answers.js";

/** Number of connections to Postgres that the page reads with, besides that of an examination. */
const connections = 3;
/** Number of connections to Postgres for retries and discards. */
const changeConnections = 1;
/** Maximum duration of a statement that reads for the page. */
export const statementMs = 5_000;
/** Time without a byte in either direction after which the handler for `node:http` ends a connection. */
const idleMs = 30_000;

/** SQLSTATE of arguments that functions of Hawser refuse. */
const invalidParameter = "22023";

/** Handler of requests for the page. */
export interface Page extends AsyncDisposable {
  /** Answers a request. Never rejects. */
  (request: Request): Promise<Response>;
  /** The handler for `node:http` and frameworks over it. */
  readonly listener: (request: IncomingMessage, response: ServerResponse) => Promise<void>;
  /** Stops running retries and discards after their current batch, and closes the connections to Postgres. */
  close(): Promise<void>;
}

/**
 * Makes the operator's page: state of an installation, dead letters with their causes, to retry and discard, and topics, to
 * pause and cancel.
 *
 * The page does what the login of `databaseUrl` may do, for everyone who can send it requests: mount it behind the
 * authentication of your application. It connects with the first request.
 *
 *     const ops = page({ databaseUrl, pathPrefix: "/ops" });
 *     Bun.serve({ fetch: ops });
 *
 * @throws HawserError `invalid_argument` for an invalid option
 */
export function page(options: PageOptions = {}): Page {
  return createPage(options, systemClock);
}

/**
 * {@link page} with another clock.
 *
 * @param isServed true if it takes samples from now on; default: from its first request on
 */
export function createPage(options: PageOptions, clock: Clock, isServed = false): Page {
  const { pathPrefix: prefix, refreshMs, samples } = checkPageOptions(options);
  const { logger = silentLogger, traceUrl, logUrl, metricsUrl } = options;
  const { databaseUrl } = urlsOrEnvironment({ databaseUrl: options.databaseUrl });
  const descriptors = options.descriptors === undefined ? undefined : Descriptors.read(options.descriptors);
  // Pages of many browsers wait for each other, but retries and discards do not wait for them.
  const limits = { ...statementLimits, statementTimeoutMs: statementMs };
  const database = openDatabase(databaseUrl, { poolSize: connections, logger, limits });
  const changing = openDatabase(databaseUrl, { poolSize: changeConnections, logger });
  const massActions = new MassActions(deadLetters(changing), clock);
  const verdicts = new Verdicts({ databaseUrl, secretsDirectories: options.secretsDirectories ?? [] }, clock, logger);
  const sampler = samples ? new Sampler(database, clock, logger) : undefined;
  if (isServed) sampler?.start();
  const unsent = new UnsentAnswers(clock);

  const app = new Hono({
    // A framework may have removed the prefix already.
    getPath: (request) => {
      const { pathname } = new URL(request.url);
      const isBelow = prefix !== "" && (pathname === prefix || pathname.startsWith(`${prefix}/`));
      return (isBelow ? pathname.slice(prefix.length) : pathname) || "/";
    },
  });
  const withinLimit = protect(app, unsent, options.hosts);
  const readings = sections(database);
  const glances = new Glances(readings, clock);
  const data = { database, changing, readings, letters: deadLetters(database), glances };
  const tokens = new FormTokens(options.secret);
  const settings = { prefix, refreshMs, traceUrl, logUrl, metricsUrl, descriptors, logger };
  const site = new Site(app, { ...settings, ...data, massActions, verdicts, tokens }, withinLimit);

  app.onError(async (error, c) => {
    const isGiven =
      error instanceof HawserError && (error.code === "invalid_argument" || sqlstateOf(error) === invalidParameter);
    if (!isGiven && !c.req.raw.signal.aborted)
      logger.error({ err: error, path: c.req.path }, "the page could not answer a request");
    const text = error instanceof HawserError ? error.message : "The page could not be rendered; the log says why.";
    const body = html`<p class="error">${short(text)}</p>`;
    return site.answer(c, isGiven ? "Not possible" : "Error", body, { status: isGiven ? 400 : 500 });
  });
  app.notFound((c) =>
    site.answer(c, "Not found", html`<p>There is no such page. <a href="${prefix}/">Overview</a></p>`, { status: 404 }),
  );
  app.get("/style.css", (c) => c.body(style, 200, { "Content-Type": "text/css; charset=utf-8" }));
  app.get("/refresh.js", (c) => c.body(refreshScript, 200, { "Content-Type": "text/javascript; charset=utf-8" }));
  app.get("/icon.svg", (c) => c.body(icon, 200, { "Content-Type": "image/svg+xml" }));
  for (const addRoutes of [
    overviewRoutes,
    deadRoutes,
    listRoutes,
    subjectRoutes,
    topicRoutes,
    messageRoutes,
    jobRoutes,
    auditRoutes,
  ])
    addRoutes(site);

  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      await massActions.close();
      await Promise.all([verdicts.close(), glances.settled(), sampler?.close()]);
      await Promise.all([database.close(), changing.close()]);
    })();
    return closed;
  };
  const handler = async (request: Request): Promise<Response> => {
    // A Host header may look like an address that there cannot be, such as 256.256.256.256.
    if (!URL.canParse(request.url)) return new Response("The URL of this request is none.\n", { status: 400 });
    sampler?.start();
    try {
      return (await unsent.add(await app.fetch(request))) ?? tooMuchUnsent();
    } catch (err) {
      logger.error({ err }, "the page could not answer a request");
      return new Response("The page could not be rendered; the log says why.\n", { status: 500 });
    }
  };
  const answerNode = getRequestListener(handler, { overrideGlobalObjects: false });
  return Object.assign(handler, {
    listener: (incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> => {
      outgoing.setTimeout(idleMs, () => outgoing.destroy());
      return answerNode(incoming, outgoing);
    },
    close,
    [Symbol.asyncDispose]: close,
  });
}
