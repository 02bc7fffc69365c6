/**
 * What NATS refuses later: it reports that a publish was not permitted on its own, after the call that made it has long
 * returned. Here it is kept until the client that published asks.
 */
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import type { Violation } from "../connection-events.js";

/** What is remembered of one client. */
interface Remembered {
  /** In the order of the last publish. */
  readonly subjects: Map<string, Watched>;
  /** Of the subjects, in UTF-8. */
  bytes: number;
}

/** What a client has published to a subject. */
interface Watched {
  violation: Violation | undefined;
  readonly bytes: number;
}

/**
 * Remembers which client published to which subjects, and hands each of them a violation once. Clients are told apart
 * by whatever the caller uses as their identity.
 */
export class Refusals<Client> {
  readonly #clients = new Map<Client, Remembered>();
  readonly #publishers = new Map<string, Set<Client>>();

  /**
   * @param maxSubjects of a client; beyond it, the one that it published to longest ago is forgotten
   * @param maxBytes of a client's subjects together, in UTF-8; beyond it, as many as need be are
   */
  constructor(
    readonly maxSubjects: number = gatewayConstants.maxWatchedSubjects,
    readonly maxBytes: number = gatewayConstants.maxWatchedSubjectBytes,
  ) {}

  /** A client has published to a subject; the subject for answers counts as one too, if there was one. */
  published(client: Client, subject: string, reply?: string): void {
    this.#watch(client, subject);
    if (reply !== undefined) this.#watch(client, reply);
  }

  /** NATS has refused a publish. Each client that published to the subject is told when it asks. */
  refused(violation: Violation): void {
    for (const client of this.#publishers.get(violation.subject) ?? []) {
      this.#clients.get(client)!.subjects.get(violation.subject)!.violation = violation;
    }
  }

  /**
   * What was refused of the client's publishing since it last asked: to the one subject or reply subject, or to all of
   * them. At most one violation of each subject, the latest.
   */
  take(client: Client, ...subjects: readonly string[]): Violation[] {
    const watched = this.#clients.get(client)?.subjects;
    if (watched === undefined) return [];
    const violations: Violation[] = [];
    for (const subject of subjects.length > 0 ? subjects : watched.keys()) {
      const entry = watched.get(subject);
      if (entry?.violation === undefined) continue;
      violations.push(entry.violation);
      entry.violation = undefined;
    }
    return violations;
  }

  /** The client has ended. */
  forget(client: Client): void {
    for (const subject of this.#clients.get(client)?.subjects.keys() ?? []) this.#unpublish(client, subject);
    this.#clients.delete(client);
  }

  #watch(client: Client, subject: string): void {
    let remembered = this.#clients.get(client);
    if (remembered === undefined) this.#clients.set(client, (remembered = { subjects: new Map(), bytes: 0 }));
    const { subjects } = remembered;
    const entry = subjects.get(subject);
    if (entry !== undefined) {
      subjects.delete(subject);
      subjects.set(subject, entry);
      return;
    }
    const bytes = Buffer.byteLength(subject);
    while (subjects.size > 0 && (subjects.size >= this.maxSubjects || remembered.bytes + bytes > this.maxBytes)) {
      this.#forgetOldest(client, remembered);
    }
    subjects.set(subject, { violation: undefined, bytes });
    remembered.bytes += bytes;
    const publishers = this.#publishers.get(subject);
    if (publishers === undefined) this.#publishers.set(subject, new Set([client]));
    else publishers.add(client);
  }

  /** Forgets the oldest subject without a violation to report; the oldest of all, if each has one. */
  #forgetOldest(client: Client, remembered: Remembered): void {
    const { subjects } = remembered;
    let oldest: string | undefined;
    for (const [subject, { violation }] of subjects) {
      oldest ??= subject;
      if (violation !== undefined) continue;
      oldest = subject;
      break;
    }
    remembered.bytes -= subjects.get(oldest!)!.bytes;
    subjects.delete(oldest!);
    this.#unpublish(client, oldest!);
  }

  #unpublish(client: Client, subject: string): void {
    const publishers = this.#publishers.get(subject);
    if (publishers === undefined) return;
    publishers.delete(client);
    if (publishers.size === 0) this.#publishers.delete(subject);
  }
}
