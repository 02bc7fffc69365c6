/** The operator's page as a handler of requests: routes, protection, and the life of its connections. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { html } from "hono/html";
import { secureHeaders } from "hono/secure-headers";
import { HawserError } from "../../foundation/errors/index.js";
import { type Clock, silentLogger, systemClock } from "../../foundation/runtime/index.js";
import { urlsOrEnvironment } from "../../foundation/sql-clients/index.js";
import { statementLimits } from "../../jobs-and-peers/store/index.js";
import { Descriptors } from "../../protobuf/typed/index.js";
import {
  type Abilities,
  examinedDeadLetters,
  type MassAction,
  type MassActionKind,
  MassActions,
  outboxTable,
  peersTable,
  pendingTable,
  type Reading,
  reading,
  scheduledTable,
  schedulesTable,
  sections,
  shownRows,
  streamsTable,
  topicsTable,
  Verdicts,
} from "../console/index.js";
import {
  cancelMessages,
  type DeadLetterSelection,
  deadLetterIdOf,
  deadLetters,
  findByNumber,
  findMessage,
  findSteps,
  type Listing,
  messageIdsOf,
  openDatabase,
  pauseTopic,
  resumeTopic,
  why,
} from "../operate/index.js";
import { FormTokens, isCrossSite, isEmbedded } from "./forms.js";
import {
  causesSection,
  confirmChange,
  deadList,
  type FormContext,
  massActionList,
  oneLetter,
  oneMassAction,
} from "./html/dead.js";
import { filterFields, filterOf, hiddenValues } from "./html/filter.js";
import { icon, layout, style } from "./html/layout.js";
import { messagePage, type SearchedStep, waitingIds } from "./html/message.js";
import { leaderSection, verdictSection } from "./html/status.js";
import { type ListPlace, listFilter, listingOf, listPlace, overviewSection } from "./html/table.js";
import { type Html, short } from "./html/text.js";
import { cancelledByForm, cancelledText, confirmCancel, topicActions } from "./html/topics.js";
import { checkPageOptions, type PageOptions } from "./page-options.js";
import { maxUnsentBytes, UnsentAnswers } from "./unsent-answers.js";

/** The largest form that is read. */
const formBytes = 64 * 1024;
/** Number of connections to Postgres that the page reads with, besides that of an examination. */
const connections = 3;
/** Number of connections to Postgres for retries and discards. */
const changeConnections = 1;
/** Maximum duration of a statement that reads for the page. */
export const statementMs = 5_000;
/** Time without a byte in either direction after which the handler for `node:http` ends a connection. */
const idleMs = 30_000;
/** Maximum number of requests for which the page makes an answer at once; it refuses others. */
export const openRequests = 32;

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

/** {@link page} with another clock. */
export function createPage(options: PageOptions, clock: Clock): Page {
  const settings = checkPageOptions(options);
  const { logger = silentLogger } = options;
  const { databaseUrl } = urlsOrEnvironment({ databaseUrl: options.databaseUrl });
  const descriptors = options.descriptors === undefined ? undefined : Descriptors.read(options.descriptors);
  // Pages of many browsers wait for each other, but retries and discards do not wait for them.
  const limits = { ...statementLimits, statementTimeoutMs: statementMs };
  const database = openDatabase(databaseUrl, { poolSize: connections, logger, limits });
  const changing = openDatabase(databaseUrl, { poolSize: changeConnections, logger });
  const readings = sections(database);
  const letters = deadLetters(database);
  const massActions = new MassActions(deadLetters(changing), clock);
  const verdicts = new Verdicts({ databaseUrl, secretsDirectories: options.secretsDirectories ?? [] }, clock, logger);
  const tokens = new FormTokens(options.secret);
  const unsent = new UnsentAnswers(clock);
  const { pathPrefix: prefix, refreshMs } = settings;
  const hosts = options.hosts?.map((host) => host.toLowerCase());

  const app = new Hono({
    // A framework may have removed the prefix already.
    getPath: (request) => {
      const { pathname } = new URL(request.url);
      const isBelow = prefix !== "" && (pathname === prefix || pathname.startsWith(`${prefix}/`));
      return (isBelow ? pathname.slice(prefix.length) : pathname) || "/";
    },
  });

  app.use(
    secureHeaders({
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
        baseUri: ["'none'"],
      },
      xFrameOptions: "DENY",
      // With `no-referrer`, browsers would send forms with the origin `null`.
      referrerPolicy: "same-origin",
      strictTransportSecurity: false,
    }),
  );
  app.use(async (c, next) => {
    c.header("Cache-Control", "no-store");
    if (hosts !== undefined && !hosts.includes(new URL(c.req.url).hostname.toLowerCase())) {
      return c.text(
        "This host name is not one of the page's; address it by one, or name this one by --allow-host or the option hosts.\n",
        421,
      );
    }
    return next();
  });
  app.use(async (c, next) => {
    // Links of other sites lead here, but their pages cannot make Postgres work by loading this one in pieces.
    if (isEmbedded(c.req.raw)) return c.text("Other sites can link to this page, but not embed it.\n", 403);
    return c.req.method === "POST" ? next() : withinLimit(c, next);
  });
  app.use(
    bodyLimit({ maxSize: formBytes, onError: (c) => c.text(`The form is longer than ${formBytes} bytes.\n`, 413) }),
  );

  let answering = 0;
  /** Runs `work`, or refuses the request while `openRequests` are being answered: a queue of them would fill the memory. */
  async function withinLimit<T>(c: Context, work: () => Promise<T>): Promise<T | Response> {
    if (unsent.isFull) return tooMuchUnsent();
    if (answering >= openRequests) {
      c.header("Retry-After", "1");
      return c.text(`The page is answering ${openRequests} requests already; load it again later.\n`, 503);
    }
    answering += 1;
    try {
      return await work();
    } finally {
      answering -= 1;
    }
  }

  const formContext = (): FormContext => ({ prefix, token: tokens.create(), now: Date.now() });

  /** Answers with a page. @param more.refreshes true if the page reloads itself */
  async function answer(
    c: Context,
    title: string,
    body: Html,
    more: {
      readonly refreshes?: boolean;
      readonly abilities?: Reading<Abilities>;
      readonly status?: 200 | 400 | 403 | 404 | 500;
    } = {},
  ): Promise<Response> {
    const { refreshes = false, abilities = await readings.abilities(), status = 200 } = more;
    const url = new URL(c.req.url);
    const isPaused = url.searchParams.has("paused");
    // A header and not an element of the page, which would reload for screen readers that have no way to pause it.
    if (refreshes && !isPaused) c.header("Refresh", String(Math.ceil(refreshMs / 1_000)));
    const frame = {
      prefix,
      path: `${c.req.path}${url.search}`,
      login: abilities.state === "read" ? abilities.value.login : undefined,
      database: abilities.state === "read" ? abilities.value.database : undefined,
      refreshMs: refreshes ? refreshMs : undefined,
      isPaused,
    };
    const failure = abilities.state === "read" ? "" : html`<p class="error">${short(abilities.why)}</p>`;
    return c.html(layout(frame, title, html`${failure}${body}`), status);
  }

  app.onError(async (error, c) => {
    const isGiven = error instanceof HawserError && error.code === "invalid_argument";
    if (!isGiven && !c.req.raw.signal.aborted)
      logger.error({ err: error, path: c.req.path }, "the page could not answer a request");
    const text = error instanceof HawserError ? error.message : "The page could not be rendered; the log says why.";
    const body = html`<p class="error">${short(text)}</p>`;
    return answer(c, isGiven ? "Not possible" : "Error", body, { status: isGiven ? 400 : 500 });
  });
  app.notFound((c) =>
    answer(c, "Not found", html`<p>There is no such page. <a href="${prefix}/">Overview</a></p>`, { status: 404 }),
  );

  app.get("/style.css", (c) => c.body(style, 200, { "Content-Type": "text/css; charset=utf-8" }));
  app.get("/icon.svg", (c) => c.body(icon, 200, { "Content-Type": "image/svg+xml" }));

  app.get("/", async (c) => {
    const before = c.req.query("before");
    const beforeId = before === undefined ? undefined : String(deadLetterIdOf(before));
    const [causes, leader] = await Promise.all([readings.causes(beforeId), readings.leader()]);
    const context = formContext();
    const body = html`${verdictSection(verdicts.newest, Date.now())}\n${causesSection(causes, context)}\n${leaderSection(leader, context.now)}`;
    return answer(c, "Overview", body, { refreshes: true });
  });

  app.get("/dead", async (c) => {
    const given = filterFields(c.req.query());
    const through = c.req.query("through");
    const filter = filterOf(given);
    const listed = reading(async () => {
      const [list, count, throughId] = await Promise.all([
        letters.list({
          ...filter,
          throughId: through === undefined ? undefined : deadLetterIdOf(through),
          limit: shownRows + 1,
        }),
        countOf(filter),
        letters.newestId(),
      ]);
      return { letters: list, count, throughId };
    });
    const abilities = await readings.abilities();
    const body = deadList(await listed, given, valueIn(abilities), formContext());
    return answer(c, "Dead letters", body, { abilities });
  });

  app.get("/dead/:id", async (c) => {
    const id = deadLetterIdOf(c.req.param("id"));
    const [read, abilities] = await Promise.all([reading(() => letters.get(id)), readings.abilities()]);
    const title = `Dead letter ${id}`;
    if (read.state !== "read")
      return answer(c, title, html`<p class="${read.state}">${short(read.why)}</p>`, { abilities });
    if (read.value === undefined) return answer(c, title, gone, { abilities, status: 404 });
    const shown = { showsPayload: c.req.query("payload") === "1", descriptors, traceUrl: options.traceUrl };
    const body = oneLetter(read.value, { ...shown, abilities: valueIn(abilities) }, formContext());
    return answer(c, title, body, { abilities });
  });

  app.get("/dead/:id/payload", async (c) => {
    const id = deadLetterIdOf(c.req.param("id"));
    const read = await reading(() => letters.get(id));
    const title = `Dead letter ${id}`;
    if (read.state !== "read") {
      const status = read.state === "denied" ? 403 : 500;
      return answer(c, title, html`<p class="${read.state}">${short(read.why)}</p>`, { status });
    }
    if (read.value === undefined) return answer(c, title, gone, { status: 404 });
    return c.body(read.value.payload as Uint8Array<ArrayBuffer>, 200, {
      "Content-Type": "application/octet-stream",
      "Content-Disposition": `attachment; filename="dead-letter-${id}.bin"`,
    });
  });

  /** Page of lists, which share a filter. */
  const onList = (
    path: string,
    title: string,
    render: (place: ListPlace, listing: Listing, now: number) => Promise<Html>,
  ): void => {
    app.get(path, async (c) => {
      const place = listPlace(`${prefix}${path}`, c.req.query());
      const body = html`${listFilter(place)}\n${await render(place, listingOf(place), Date.now())}`;
      return answer(c, title, body, { refreshes: true });
    });
  };
  onList("/backlog", "Backlog", async (place, listing, now) => {
    const pending = overviewSection("pending", pendingTable, await readings.pending(listing), now, place);
    return html`${pending}\n<p><a href="${prefix}/topics">Topics and their listeners</a></p>`;
  });
  onList("/topics", "Topics", async (place, listing, now) => {
    const [topics, abilities] = await Promise.all([readings.topics(listing), readings.abilities()]);
    const may = valueIn(abilities);
    const actions = may && topicActions(may, formContext());
    return overviewSection("topics", topicsTable, topics, now, place, actions);
  });
  onList("/peers", "Peers", async (place, listing, now) =>
    overviewSection("peers", peersTable, await readings.peers(listing), now, place),
  );
  onList("/outbox", "Outbox", async (place, listing, now) => {
    const [outbox, scheduled] = await Promise.all([readings.outbox(), readings.scheduled(listing)]);
    return html`${overviewSection("outbox", outboxTable, outbox, now)}
${overviewSection("scheduled", scheduledTable, scheduled, now, place)}`;
  });
  onList("/streams", "Streams", async (place, listing, now) =>
    overviewSection("streams", streamsTable, await readings.streams(listing), now, place),
  );
  onList("/schedules", "Schedules", async (place, listing, now) =>
    overviewSection("schedules", schedulesTable, await readings.schedules(listing), now, place),
  );
  app.get("/message", async (c) => {
    const id = c.req.query("id") ?? "";
    const shown = { prefix, id, traceUrl: options.traceUrl, now: Date.now() };
    if (id === "") return answer(c, "Find a message", messagePage(shown, []));
    // First, because it may say the message id, by which all others are found.
    const numbered = await Promise.all([
      reading(() => findByNumber(database, id, "outbox")),
      reading(() => findByNumber(database, id, "queue")),
    ]);
    const ids = messageIdsOf(
      id,
      numbered.flatMap((read) => valueIn(read) ?? []),
    );
    const steps = await Promise.all(
      findSteps.map(
        async (step): Promise<SearchedStep> => ({
          step,
          found: await reading(() => findMessage(database, id, ids, step)),
        }),
      ),
    );
    const [outbox, queue] = numbered;
    const first: SearchedStep[] = [
      { step: "outboxNumber", found: outbox },
      { step: "queueNumber", found: queue },
    ];
    const searched = [...first, ...steps];
    const conditions = new Map(
      await Promise.all(
        waitingIds(searched).map(async (of) => [of, await reading(() => why(database, { id: BigInt(of) }))] as const),
      ),
    );
    return answer(c, "Find a message", messagePage({ ...shown, conditions }, searched));
  });

  /** Mass action of a path. @throws HawserError `invalid_argument` */
  const massActionOf = (id: string): MassAction => {
    const massAction = massActions.get(id);
    if (massAction !== undefined) return massAction;
    throw new HawserError(
      "invalid_argument",
      `this process has no retry or discard ${id}: it ended with the process, or is one of another`,
    );
  };
  app.get("/actions", (c) =>
    answer(c, "Retries and discards", massActionList(massActions.all, formContext()), { refreshes: true }),
  );
  app.get("/actions/:id", async (c) => {
    const massAction = massActionOf(c.req.param("id"));
    const refreshes = massAction.state === "waiting" || massAction.state === "running";
    const title = `${massAction.kind === "retry" ? "Retry" : "Discard"} ${massAction.id}`;
    const abilities = await readings.abilities();
    return answer(c, title, oneMassAction(massAction, formContext()), { refreshes, abilities });
  });

  type Form = Readonly<Record<string, string>>;
  /** Answers a form, unless another site may have sent it. */
  const onForm = (path: string, use: (c: Context, form: Form) => Promise<Response>): void => {
    app.post(path, async (c) => {
      const isForeign = isCrossSite(c.req.raw);
      const form = isForeign ? {} : hiddenValues(await bodyOf(c));
      return withinLimit(c, async () => {
        if (isForeign || form["token"] === undefined || !tokens.isValid(form["token"])) {
          const body = html`<p class="error">The form was refused: it is older than this process, or another site sent it. Load the page again, and repeat your step.</p>`;
          return answer(c, "Refused", body, { status: 403 });
        }
        return use(c, form);
      });
    });
  };
  /** Number of dead letters that match, up to `examinedDeadLetters` + 1; undefined if counting takes too long. */
  const countOf = (filter: DeadLetterSelection): Promise<number | undefined> =>
    letters.count(filter, examinedDeadLetters + 1);

  for (const action of ["retry", "discard"] as const) {
    onForm(`/dead/${action}`, async (c, form) => {
      const abilities = await readings.abilities();
      const may = valueIn(abilities);
      if (!(action === "retry" ? may?.canRetry : may?.canDiscard)) {
        const body = html`<p class="denied">This login may not ${action} dead letters.</p>`;
        return answer(c, "Refused", body, { abilities, status: 403 });
      }
      return changed(c, action, form);
    });
  }
  async function changed(c: Context, kind: MassActionKind, form: Form): Promise<Response> {
    const { id, through, confirm } = form;
    const fields = filterFields(form);
    const selection: DeadLetterSelection =
      id === undefined
        ? { ...filterOf(fields), throughId: deadLetterIdOf(through ?? "") }
        : { ids: [deadLetterIdOf(id)] };
    const expected = await countOf(selection);
    // A retry of the one that the page shows is what its button says.
    if (confirm !== "yes" && (kind === "discard" || id === undefined)) {
      const repeated = id === undefined ? { ...fields, through } : { id };
      const title = kind === "discard" ? "Discard?" : "Retry?";
      return answer(c, title, confirmChange(kind, expected, repeated, formContext()));
    }
    const massAction = massActions.start(kind, selection, expected);
    logger.info({ action: kind, selection, massAction: massAction.id }, "an operator changes dead letters");
    return c.redirect(`${prefix}/actions/${massAction.id}`, 303);
  }
  /** Answers a form that changes a topic. */
  const onTopic = (
    action: string,
    ability: "canPause" | "canCancel",
    change: (c: Context, topic: string, form: Form) => Promise<Response>,
  ): void => {
    onForm(`/topics/${action}`, async (c, form) => {
      const abilities = await readings.abilities();
      if (valueIn(abilities)?.[ability] !== true) {
        const body = html`<p class="denied">This login may not ${action} ${action === "cancel" ? "messages" : "topics"}.</p>`;
        return answer(c, "Refused", body, { abilities, status: 403 });
      }
      return change(c, form["topic"] ?? "", form);
    });
  };
  for (const [action, change] of [
    ["pause", pauseTopic],
    ["resume", resumeTopic],
  ] as const) {
    onTopic(action, "canPause", async (c, topic) => {
      await change(changing, topic);
      logger.info({ action, topic }, "an operator changes a topic");
      return c.redirect(`${prefix}/topics`, 303);
    });
  }
  onTopic("cancel", "canCancel", async (c, topic, form) => {
    if (form["confirm"] !== "yes") return answer(c, "Cancel messages?", confirmCancel(topic, formContext()));
    const { "typed-key": key = "", "typed-minutes": minutes = "0" } = form;
    if (!/^\d{1,7}$/.test(minutes))
      throw new HawserError("invalid_argument", `minutes "${minutes.slice(0, 60)}": must be a whole number from 0`);
    const before = minutes === "0" ? undefined : new Date(Date.now() - Number(minutes) * 60_000);
    const counts: Record<string, number> = {};
    let seen = 0;
    let hasMore = false;
    const selection = { kind: "peer", destination: topic, key: key || undefined, before } as const;
    for await (const page of cancelMessages(changing, selection)) {
      for (const { outcome } of page) counts[outcome] = (counts[outcome] ?? 0) + 1;
      seen += page.length;
      hasMore = seen >= cancelledByForm;
      if (hasMore) break;
    }
    logger.info({ action: "cancel", topic, key, before, counts }, "an operator cancels messages");
    const body = html`${cancelledText(topic, counts, hasMore)}\n<p><a href="${prefix}/topics">Topics</a></p>`;
    return answer(c, "Cancelled", body);
  });
  onForm("/actions/:id/stop", async (c) => {
    const massAction = massActionOf(c.req.param("id") ?? "");
    massActions.stop(massAction.id);
    return c.redirect(`${prefix}/actions/${massAction.id}`, 303);
  });

  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => {
    closed ??= (async () => {
      await massActions.close();
      await verdicts.close();
      await Promise.all([database.close(), changing.close()]);
    })();
    return closed;
  };
  const handler = async (request: Request): Promise<Response> => {
    // A Host header may look like an address that there cannot be, such as 256.256.256.256.
    if (!URL.canParse(request.url)) return new Response("The URL of this request is none.\n", { status: 400 });
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

function tooMuchUnsent(): Response {
  const text = `Browsers have not taken ${maxUnsentBytes / 1024 / 1024} MiB of the page's answers yet; load it again later.\n`;
  return new Response(text, { status: 503, headers: { "Cache-Control": "no-store", "Retry-After": "1" } });
}

/** Fields of the form that a request has. @throws HawserError `invalid_argument` */
async function bodyOf(c: Context): Promise<Readonly<Record<string, unknown>>> {
  try {
    return await c.req.parseBody();
  } catch (cause) {
    throw new HawserError("invalid_argument", "the form could not be read; load the page again, and repeat your step", {
      cause,
    });
  }
}

const gone = html`<p>There is no such dead letter: it was retried, discarded, or expired.</p>`;

function valueIn<T>(read: Reading<T>): T | undefined {
  return read.state === "read" ? read.value : undefined;
}
