/**
 * What NATS refuses later: it reports that a publish was not permitted on its own, after the call that made it has long
 * returned. Here it is kept until the session that published asks.
 */
import { gatewayConstants } from "../../../generated/ts/settings/nats.js";
import type { Violation } from "../connection-events.js";

/** What is remembered of one session. */
interface Remembered {
  /** In the order of the last publish. */
  readonly subjects: Map<string, Watched>;
  /** Of the subjects, in UTF-8. */
  bytes: number;
}

/** What a session has published to a subject. */
interface Watched {
  violation: Violation | undefined;
  readonly bytes: number;
}

/**
 * Remembers which session published to which subjects, and hands each of them a violation once. Sessions are told apart
 * by whatever the caller uses as their identity.
 */
export class Refusals<Session> {
  readonly #sessions = new Map<Session, Remembered>();
  readonly #publishers = new Map<string, Set<Session>>();

  /**
   * @param maxSubjects of a session; beyond it, the one that it published to longest ago is forgotten
   * @param maxBytes of a session's subjects together, in UTF-8; beyond it, as many as need be are
   */
  constructor(
    readonly maxSubjects: number = gatewayConstants.maxWatchedSubjects,
    readonly maxBytes: number = gatewayConstants.maxWatchedSubjectBytes,
  ) {}

  /** A session has published to a subject; the subject for answers counts as one too, if there was one. */
  published(session: Session, subject: string, reply?: string): void {
    this.#watch(session, subject);
    if (reply !== undefined) this.#watch(session, reply);
  }

  /** NATS has refused a publish. Each session that published to the subject is told when it asks. */
  refused(violation: Violation): void {
    for (const session of this.#publishers.get(violation.subject) ?? []) {
      this.#sessions.get(session)!.subjects.get(violation.subject)!.violation = violation;
    }
  }

  /**
   * What was refused of the session's publishing since it last asked: to the one subject or reply subject, or to all of
   * them. At most one violation of each subject, the latest.
   */
  take(session: Session, ...subjects: readonly string[]): Violation[] {
    const watched = this.#sessions.get(session)?.subjects;
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

  /** The session has ended. */
  forget(session: Session): void {
    for (const subject of this.#sessions.get(session)?.subjects.keys() ?? []) this.#unpublish(session, subject);
    this.#sessions.delete(session);
  }

  #watch(session: Session, subject: string): void {
    let remembered = this.#sessions.get(session);
    if (remembered === undefined) this.#sessions.set(session, (remembered = { subjects: new Map(), bytes: 0 }));
    const { subjects } = remembered;
    const entry = subjects.get(subject);
    if (entry !== undefined) {
      subjects.delete(subject);
      subjects.set(subject, entry);
      return;
    }
    const bytes = Buffer.byteLength(subject);
    while (subjects.size > 0 && (subjects.size >= this.maxSubjects || remembered.bytes + bytes > this.maxBytes)) {
      this.#forgetOldest(session, remembered);
    }
    subjects.set(subject, { violation: undefined, bytes });
    remembered.bytes += bytes;
    const publishers = this.#publishers.get(subject);
    if (publishers === undefined) this.#publishers.set(subject, new Set([session]));
    else publishers.add(session);
  }

  /** Forgets the oldest subject without a violation to report; the oldest of all, if each has one. */
  #forgetOldest(session: Session, remembered: Remembered): void {
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
    this.#unpublish(session, oldest!);
  }

  #unpublish(session: Session, subject: string): void {
    const publishers = this.#publishers.get(subject);
    if (publishers === undefined) return;
    publishers.delete(session);
    if (publishers.size === 0) this.#publishers.delete(subject);
  }
}
