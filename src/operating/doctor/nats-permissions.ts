/**
 * Permissions of the NATS user for all subjects in use, probed over a separate connection without side effects.
 *
 * A subscription is probed by subscribing and unsubscribing in the same write. A publish is probed by an empty message
 * with a reserved reply subject: the server checks the permission first, and then rejects the message because of its
 * reply, so that no subscriber receives it. A first test, on a subject without subscribers, shows whether the server
 * rejects such messages.
 */
import { errors, type NatsConnection, nuid } from "@nats-io/transport-node";
import type { CompleteNatsServerOptions } from "../../../generated/ts/nats-options/index.js";
import { tables } from "../../../generated/ts/rows/nats.js";
import { HawserError } from "../../foundation/errors/index.js";
import { connectOnce, type Established, refusedSubject, SecretFiles } from "../../nats/connections/index.js";
import { someOf } from "../installation/index.js";
import { catalogCheck, natsHangs } from "./check.js";
import type { Check, Finding, Verdict } from "./examine.js";
import type { Facts } from "./facts.js";
import { natsDefinition } from "./nats-server.js";

/** Time limit of doctor's own connection to NATS, with its requests. */
export const natsCheckMs = 6_000;

/** Permission of a user for a subject; undefined if the server cannot be probed. */
export type Permission = "allowed" | "denied" | undefined;

/** Reply subject of service imports, with which no client may publish. */
const reservedReply = "_R_.hawser_doctor";

/** Connection that probes permissions. */
export class NatsProbe implements AsyncDisposable {
  readonly #established: Established | undefined;
  readonly #refusedPublishes = new Set<string>();
  readonly #refusedSubscriptions = new Set<string>();
  #isPublishProbeable: boolean | undefined;

  readonly problem: HawserError | undefined;

  private constructor(
    established: Established | undefined,
    /** Reason why there is no connection; undefined if there is one. */
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
      // Closing ends the wait for a server that hangs.
      signal.addEventListener("abort", () => void established.connection.close());
      return new NatsProbe(established, undefined);
    } catch (error) {
      if (!(error instanceof HawserError)) throw error;
      return new NatsProbe(undefined, error);
    }
  }

  /** Probes the permission to subscribe to each subject, wildcards included. */
  async maySubscribe(subjects: readonly string[]): Promise<Permission[]> {
    const connection = this.#connection();
    for (const subject of subjects) connection.subscribe(subject, { callback: () => undefined }).unsubscribe();
    await this.#answered();
    return subjects.map((subject) => (this.#refusedSubscriptions.has(subject) ? "denied" : "allowed"));
  }

  /** Probes the permission to publish to a subject. */
  async mayPublish(subject: string): Promise<Permission> {
    if (!(await this.#canProbePublish())) return undefined;
    await this.#publish(subject);
    return this.#refusedPublishes.has(subject) ? "denied" : "allowed";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#established?.connection.close();
  }

  #connection(): NatsConnection {
    return this.#established!.connection;
  }

  /**
   * True if a publish can be probed. Without the permission to subscribe to inboxes, the test shows nothing, and the
   * version of the server decides.
   */
  async #canProbePublish(): Promise<boolean> {
    if (this.#isPublishProbeable === undefined) {
      const nowhere = `_INBOX.${nuid.next()}`;
      await this.#publish(nowhere);
      this.#isPublishProbeable = this.#refusedPublishes.has(reservedReply) || isNatsServer(this.#connection());
    }
    return this.#isPublishProbeable;
  }

  async #publish(subject: string): Promise<void> {
    this.#connection().publish(subject, new Uint8Array(), { reply: reservedReply });
    await this.#answered();
  }

  /**
   * Waits for the permission errors of the server. They precede its answer to the flush, and nats.js reports them in a
   * later turn of the event loop.
   */
  async #answered(): Promise<void> {
    await this.#connection().flush();
    await new Promise((resolve) => setImmediate(resolve));
  }

  async #watch(connection: NatsConnection): Promise<void> {
    for await (const status of connection.status()) {
      if (status.type !== "error" || !(status.error instanceof errors.PermissionViolationError)) continue;
      const { operation, subject, message } = status.error;
      if (operation === "publish") this.#refusedPublishes.add(refusedSubject(message) ?? subject);
      else this.#refusedSubscriptions.add(subject);
    }
  }
}

/** True for nats-server from version 2.2 on, which rejects reserved replies. */
function isNatsServer({ info }: NatsConnection): boolean {
  const [major = 0, minor = 0] = (info?.version ?? "").split(".").map(Number);
  return info?.go !== undefined && (major > 2 || (major === 2 && minor >= 2));
}

/** Check of the permissions to subscribe to the subjects of handlers, and to publish role-change notices. */
export function permissionsCheck(facts: Facts): Check {
  return catalogCheck("nats-permissions", (signal) => permissions(facts, signal), {
    needs: ["nats"],
    timeoutMs: natsCheckMs,
    late: natsHangs,
  });
}

async function permissions(facts: Facts, signal: AbortSignal): Promise<Verdict> {
  const definition = await natsDefinition(facts);
  if (definition.kind !== "complete")
    return {
      notChecked:
        "this login may not read the whole definition of the NATS server: run `hawser doctor` as the login of `hawser serve`",
    };
  const { options } = definition;
  if (!(await facts.mayRead(tables.natsHandler)))
    return { notChecked: "this login may not read hawser_bridge_data.nats_handlers" };
  const rows = await facts.rows<{ subject: string }>(
    `SELECT DISTINCT h.subject FROM ${tables.natsHandler} AS h ORDER BY 1`,
  );
  const subjects = rows.map(({ subject }) => subject);
  await using probe = await NatsProbe.open(options, facts.options.secretsDirectories, signal);
  if (probe.problem !== undefined) {
    const { code, message } = probe.problem;
    const where = code === "secret_file" ? ": run it where `hawser serve` runs, with its --secrets-dir" : "";
    return {
      notChecked: `this machine has no connection to NATS with the options of the server: ${message}${where}`,
    };
  }
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
      remedy: `In the configuration of the NATS server: permissions { subscribe: { allow: [${denied.map((subject) => JSON.stringify(subject)).join(", ")}] } }, or remove ${denied.length === 1 ? "it" : "them"} from its deny list`,
    });
  }
  if (mayNotify === "denied") {
    findings.push({
      severity: "warning",
      code: "nats_permission_denied",
      what: `the NATS user may not publish to "${notices}" (notify_subject): no subscriber is notified when the role of Postgres changes`,
      remedy: `In the configuration of the NATS server: permissions { publish: { allow: [${JSON.stringify(notices)}] } }, or name another notify_subject`,
    });
  }
  return {
    findings,
    seen: `${subjects.length} subjects may be subscribed to`,
    ...(mayNotify === undefined && {
      notChecked: `the permission to publish to "${notices}": this server cannot be probed without a publish`,
    }),
  };
}
