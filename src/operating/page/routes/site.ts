/** What the routes of the page share: data, settings, and how they answer. */
import type { Context, Hono } from "hono";
import { html } from "hono/html";
import { HawserError } from "../../../foundation/errors/index.js";
import type { Logger } from "../../../foundation/runtime/index.js";
import type { Database } from "../../../jobs-and-peers/store/index.js";
import type { Descriptors } from "../../../protobuf/typed/index.js";
import {
  type Abilities,
  badgesOf,
  type Glances,
  type MassActions,
  type Reading,
  type Sections,
  type Verdicts,
} from "../../console/index.js";
import type { DeadLetters } from "../../operate/index.js";
import { type FormTokens, isCrossSite } from "../forms.js";
import type { FormContext } from "../html/filter.js";
import { hiddenValues } from "../html/filter.js";
import { layout } from "../html/layout.js";
import { type Html, short } from "../html/text.js";
import type { WithinLimit } from "../protection.js";

/** Data and settings of the page. */
export interface SiteOptions {
  readonly prefix: string;
  readonly refreshMs: number;
  /** Link to a trace, with `{traceId}`; undefined: traces have no links. */
  readonly traceUrl: string | undefined;
  /** Link to the log of a message, with `{messageId}`; undefined: there is none. */
  readonly logUrl: string | undefined;
  /** Link to the metrics of a topic, with `{topic}`; undefined: there is none. */
  readonly metricsUrl: string | undefined;
  readonly descriptors: Descriptors | undefined;
  readonly logger: Logger;
  /** Pool that pages read with. */
  readonly database: Database;
  /** Pool of its own for changes, which do not wait for pages. */
  readonly changing: Database;
  readonly readings: Sections;
  readonly letters: DeadLetters;
  readonly massActions: MassActions;
  readonly verdicts: Verdicts;
  readonly glances: Glances;
  readonly tokens: FormTokens;
}

/** Fields of a form. */
export type Form = Readonly<Record<string, string>>;

/** More about an answer. */
export interface AnswerOptions {
  /** True if the page reloads itself. Default: false. */
  readonly refreshes?: boolean;
  /** What the login may do, if it has been read already. */
  readonly abilities?: Reading<Abilities>;
  /** Path of the entry of the navigation that the page belongs to. Default: its own path. */
  readonly place?: string;
  /** Default: 200; 503 if Postgres is away. */
  readonly status?: 200 | 400 | 403 | 404 | 500 | 503;
}

/** The page, to which routes are added. */
export class Site {
  constructor(
    readonly app: Hono,
    readonly options: SiteOptions,
    readonly withinLimit: WithinLimit,
  ) {}

  /** Parts that forms and links of an answer need. */
  formContext(): FormContext {
    const { prefix, tokens } = this.options;
    return { prefix, token: tokens.create(), now: Date.now() };
  }

  /** Answers with a page. */
  async answer(c: Context, title: string, body: Html, more: AnswerOptions = {}): Promise<Response> {
    const { prefix, refreshMs, readings, glances } = this.options;
    const { refreshes = false, abilities = await readings.abilities(), place = c.req.path } = more;
    const isAway = abilities.state === "failed" && abilities.isAway;
    const { status = isAway ? 503 : 200 } = more;
    const { glance } = glances.newest;
    const url = new URL(c.req.url);
    const isPaused = url.searchParams.has("paused");
    const frame = {
      prefix,
      path: `${c.req.path}${url.search}`,
      place,
      badges: glance === undefined ? undefined : badgesOf(glance, Date.now()),
      login: abilities.state === "read" ? abilities.value.login : undefined,
      database: abilities.state === "read" ? abilities.value.database : undefined,
      refreshMs: refreshes ? refreshMs : undefined,
      isPaused,
    };
    const failure = abilities.state === "read" ? "" : html`<p class="error">${short(abilities.why)}</p>`;
    return c.html(layout(frame, title, html`${failure}${body}`), status);
  }

  /** Answers a form, unless another site may have sent it. */
  onForm(path: string, use: (c: Context, form: Form) => Promise<Response>): void {
    this.app.post(path, async (c) => {
      const isForeign = isCrossSite(c.req.raw);
      const form = isForeign ? {} : hiddenValues(await bodyOf(c));
      return this.withinLimit(c, async () => {
        if (isForeign || form["token"] === undefined || !this.options.tokens.isValid(form["token"])) {
          const body = html`<p class="error">The form was refused: it is older than this process, or another site sent it. Load the page again, and repeat your step.</p>`;
          return this.answer(c, "Refused", body, { status: 403 });
        }
        return use(c, form);
      });
    });
  }

  /** {@link onForm} for a form whose action the login must be able to do, which `words` name. */
  onAction(
    path: string,
    ability: keyof { [Name in keyof Abilities as Abilities[Name] extends boolean ? Name : never]: true },
    words: string,
    use: (c: Context, form: Form) => Promise<Response>,
  ): void {
    this.onForm(path, async (c, form) => {
      const abilities = await this.options.readings.abilities();
      if (valueIn(abilities)?.[ability] === true) return use(c, form);
      const body = html`<p class="denied">This login may not ${words}.</p>`;
      return this.answer(c, "Refused", body, { abilities, status: 403 });
    });
  }
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

/** Value of a reading; undefined if it has none. */
export function valueIn<T>(read: Reading<T>): T | undefined {
  return read.state === "read" ? read.value : undefined;
}
