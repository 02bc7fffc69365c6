/**
 * Keeps refusals of publishes until the publishing client asks for them: the server reports a refusal asynchronously,
 * after the publishing call may have returned.
 */
/** Number of subjects of a session that are remembered, to report refusals that NATS sends later. */
export const maxWatchedSubjects = 1_000;
/** Maximum size of a session's remembered subjects together, in UTF-8. */
const maxWatchedSubjectBytes = 64 * 1024;

/** A publish that the server did not permit. */
export interface Violation {
  /** Refused subject or reply subject. */
  readonly subject: string;
  /** Text of the server. */
  readonly message: string;
}

/** Subjects of one client. */
interface ClientSubjects {
  /** Subjects in the order of their last publish. */
  readonly subjects: Map<string, PublishedSubject>;
  /** Size of the subjects in UTF-8. */
  bytes: number;
}

/** A subject that a client has published to. */
interface PublishedSubject {
  violation: Violation | undefined;
  readonly bytes: number;
}

/**
 * Remembers which client published to which subjects, and returns each violation to each of them once. `Client` is any
 * value that identifies a client.
 */
export class Refusals<Client> {
  readonly #clients = new Map<Client, ClientSubjects>();
  readonly #publishers = new Map<string, Set<Client>>();

  /**
   * @param maxSubjects maximum of subjects of a client; above it, the least recently used one is forgotten
   * @param maxBytes maximum size of a client's subjects in UTF-8; above it, the least recently used ones are forgotten
   */
  constructor(
    readonly maxSubjects: number = maxWatchedSubjects,
    readonly maxBytes: number = maxWatchedSubjectBytes,
  ) {}

  /**
   * Notes that a client has published to a subject, optionally with a reply subject, which the server may refuse as
   * well.
   */
  published(client: Client, subject: string, reply?: string): void {
    this.#add(client, subject);
    if (reply !== undefined) this.#add(client, reply);
  }

  /** Notes a violation, for all clients that published to the subject. */
  refused(violation: Violation): void {
    for (const client of this.#publishers.get(violation.subject) ?? []) {
      this.#clients.get(client)!.subjects.get(violation.subject)!.violation = violation;
    }
  }

  /**
   * Returns and removes the violations of the client's publishes: of the given subjects and reply subjects, or of all.
   * For each subject, only the latest violation is kept.
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

  /** Forgets a client that has disconnected. */
  forget(client: Client): void {
    for (const subject of this.#clients.get(client)?.subjects.keys() ?? []) this.#unpublish(client, subject);
    this.#clients.delete(client);
  }

  #add(client: Client, subject: string): void {
    let published = this.#clients.get(client);
    if (published === undefined) this.#clients.set(client, (published = { subjects: new Map(), bytes: 0 }));
    const { subjects } = published;
    const entry = subjects.get(subject);
    if (entry !== undefined) {
      subjects.delete(subject);
      subjects.set(subject, entry);
      return;
    }
    const bytes = Buffer.byteLength(subject);
    while (subjects.size > 0 && (subjects.size >= this.maxSubjects || published.bytes + bytes > this.maxBytes)) {
      this.#forgetOldest(client, published);
    }
    subjects.set(subject, { violation: undefined, bytes });
    published.bytes += bytes;
    const publishers = this.#publishers.get(subject);
    if (publishers === undefined) this.#publishers.set(subject, new Set([client]));
    else publishers.add(client);
  }

  /** Forgets the oldest subject without a violation to report; the oldest of all if each has one. */
  #forgetOldest(client: Client, published: ClientSubjects): void {
    const { subjects } = published;
    let oldest: string | undefined;
    for (const [subject, { violation }] of subjects) {
      oldest ??= subject;
      if (violation !== undefined) continue;
      oldest = subject;
      break;
    }
    published.bytes -= subjects.get(oldest!)!.bytes;
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
