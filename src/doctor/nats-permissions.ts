/**
 * What the NATS user may do, as far as it is used; asked over a connection of our own to NATS, without doing it.
 *
 * Subscribing is asked by a subscription that is taken back in the same write. Publishing is asked by an empty message whose
 * reply subject is one that NATS keeps for itself: the server checks the permission first, and then refuses the message
 * because of its reply, so that it reaches nobody. Whether a server does so is tried on a subject that nobody listens to.
 */
import { errors, type NatsConnection, nuid } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../generated/ts/nats-options/index.js";
import { tables } from "../../generated/ts/rows/nats.js";
import { doctorConstants } from "../../generated/ts/settings/nats.js";
import { HawserError } from "../errors/index.js";
import { someOf } from "../installation/index.js";
import { connectOnce, type Established, publishViolation, SecretFiles } from "../nats/index.js";
import { catalogCheck, natsHangs } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";
import { natsDefinition } from "./nats-server.js";

/** What a user may do with a subject; undefined if the server does not let itself be asked. */
export type Permission = "allowed" | "denied" | undefined;

/** Of service imports; no client may publish with it. */
const reservedReply = "_R_.hawser_doctor";

/** A connection that asks. */
export class NatsProbe implements AsyncDisposable {
  readonly #established: Established | undefined;
  readonly #refusedPublishes = new Set<string>();
  readonly #refusedSubscriptions = new Set<string>();
  #isPublishAskable: boolean | undefined;

  readonly problem: HawserError | undefined;

  private constructor(
    established: Established | undefined,
    /** Why there is no connection; undefined if there is one. */
    problem: HawserError | undefined,
  ) {
    this.problem = problem;
    this.#established = established;
    if (established !== undefined) void this.#watch(established.connection);
  }

  /** Connects as `hawser serve` would, from this machine. @throws the reason of the signal */
  static async open(
    options: CompleteNatsServerOptions,
    secretsDirectories: readonly string[],
    signal: AbortSignal,
  ): Promise<NatsProbe> {
    try {
      const files = new SecretFiles(secretsDirectories);
      const established = await connectOnce({ name: "hawser doctor", options, files, signal });
      // A server that hangs answers nothing that is waited for.
      signal.addEventListener("abort", () => void established.connection.close());
      return new NatsProbe(established, undefined);
    } catch (error) {
      if (!(error instanceof HawserError)) throw error;
      return new NatsProbe(undefined, error);
    }
  }

  /** Whether messages of each subject, wildcards included, may be received. */
  async maySubscribe(subjects: readonly string[]): Promise<Permission[]> {
    const connection = this.#connection();
    for (const subject of subjects) connection.subscribe(subject, { callback: () => undefined }).unsubscribe();
    await this.#answered();
    return subjects.map((subject) => (this.#refusedSubscriptions.has(subject) ? "denied" : "allowed"));
  }

  /** Whether messages may be published to the subject. */
  async mayPublish(subject: string): Promise<Permission> {
    if (!(await this.#canAskPublish())) return undefined;
    await this.#publish(subject);
    return this.#refusedPublishes.has(subject) ? "denied" : "allowed";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#established?.connection.close();
  }

  #connection(): NatsConnection {
    return this.#established!.connection;
  }

  /** Where the user may not publish to an inbox either, that answer tells nothing of the reply; the server's version does. */
  async #canAskPublish(): Promise<boolean> {
    if (this.#isPublishAskable === undefined) {
      const nowhere = `_INBOX.${nuid.next()}`;
      await this.#publish(nowhere);
      this.#isPublishAskable = this.#refusedPublishes.has(reservedReply) || isNatsServer(this.#connection());
    }
    return this.#isPublishAskable;
  }

  async #publish(subject: string): Promise<void> {
    this.#connection().publish(subject, new Uint8Array(), { reply: reservedReply });
    await this.#answered();
  }

  /** What the server has refused came before its answer to the flush, and is told in a later turn. */
  async #answered(): Promise<void> {
    await this.#connection().flush();
    await new Promise((resolve) => setImmediate(resolve));
  }

  async #watch(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type !== "error" || !(status.error instanceof errors.PermissionViolationError)) continue;
      const { operation, subject, message } = status.error;
      if (operation === "publish") this.#refusedPublishes.add(publishViolation(message)?.subject ?? subject);
      else this.#refusedSubscriptions.add(subject);
    }
  }
}

/** Those of the NATS project have refused such replies since 2.2. */
function isNatsServer({ info }: NatsConnection): boolean {
  const [major = 0, minor = 0] = (info?.version ?? "").split(".").map(Number);
  return info?.go !== undefined && (major > 2 || (major === 2 && minor >= 2));
}

/** Subscribing to what has handlers, and publishing role-change notices. */
export function permissionsCheck(facts: Facts): Check {
  return catalogCheck("nats-permissions", (signal) => permissions(facts, signal), {
    needs: ["nats"],
    timeoutMs: doctorConstants.natsCheckMs,
    late: natsHangs,
  });
}

async function permissions(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const definition = await natsDefinition(facts);
  if (definition.kind !== "complete")
    return {
      notChecked:
        "this login may not read the whole definition of the NATS server: run it as the login of `hawser serve`",
    };
  const { options } = definition;
  if (!(await facts.mayRead(tables.natsHandler))) return { notChecked: "this login may not read hawser.nats_handlers" };
  const rows = await facts.rows<{ subject: string }>(
    `SELECT DISTINCT h.subject FROM ${tables.natsHandler} AS h ORDER BY 1`,
  );
  const subjects = rows.map(({ subject }) => subject);
  await using probe = await NatsProbe.open(options, facts.options.secretsDirectories, signal);
  if (probe.problem !== undefined)
    return {
      notChecked: `this machine has no connection to NATS with the options of the server: ${probe.problem.message}`,
    };
  const answers = await probe.maySubscribe(subjects);
  const denied = subjects.filter((_, at) => answers[at] === "denied");
  const notices = options.notify_subject;
  const mayNotify = await probe.mayPublish(notices);
  const findings: Finding[] = [];
  if (denied.length > 0) {
    findings.push({
      severity: "error",
      code: "nats_permission_denied",
      what: `the NATS user may not subscribe to ${someOf(
        denied.map((subject) => `"${subject}"`),
        5,
      )}: the functions for it are never called`,
      remedy: `In the configuration of the NATS server: permissions { subscribe: { allow: [${denied.map((subject) => JSON.stringify(subject)).join(", ")}] } }, or take ${denied.length === 1 ? "it" : "them"} out of its deny`,
    });
  }
  if (mayNotify === "denied") {
    findings.push({
      severity: "warning",
      code: "nats_permission_denied",
      what: `the NATS user may not publish to "${notices}" (notify_subject): nobody hears of a change of the role of Postgres`,
      remedy: `In the configuration of the NATS server: permissions { publish: { allow: [${JSON.stringify(notices)}] } }, or name another notify_subject`,
    });
  }
  return {
    findings,
    seen: `${subjects.length} subjects may be subscribed to`,
    ...(mayNotify === undefined && {
      notChecked: `whether "${notices}" may be published to: this server cannot be asked without publishing`,
    }),
  };
}
