/**
 * The memory budget that all queues of a process share. {@link memoryOf} defines the size of a message. A message in
 * several queues is counted once, until the last of them has finished it.
 *
 * A queue that receives more than its function can handle would take all memory, and the other queues would lose
 * messages. So the last quarter is divided equally among the roles that functions run as, including roles whose queues
 * are empty: the number of subscriptions of one role does not affect the others. Within the memory that a role
 * may use, the last quarter is divided among its non-empty queues, with one more part for all its empty queues. A queue
 * that is alone may use everything.
 */
import { type InboundMessage, memoryOf } from "../message.js";

/**
 * The part of the memory for messages, as a divisor, that is kept free: for other roles, for other subscriptions of a
 * role, and, of what is kept for a takeover, for messages that come after it.
 */
export const bufferReserveDivisor = 4;
/** The part of `bufferBytes`, as a divisor, from which on messages are written to the table. */
const spillDivisor = 2;

/** Options for offering a message to a queue. */
export interface Admission {
  /** Queues that already hold this message. A queue that accepts it is appended. Default: none. */
  readonly holders?: QueueMemory[] | undefined;
  /**
   * True for a message that must not be discarded: from the takeover buffer or a table, which have limits of their own.
   */
  readonly isKept?: boolean;
}

/** Memory that a message needs if a queue accepts it, in bytes. */
interface Demand {
  /** Size of the message. */
  readonly bytes: number;
  /** Increase of the used memory: 0 if another queue already holds the message. */
  readonly inAll: number;
  /** Increase of the role's memory: 0 if another queue of the role already holds the message. */
  readonly ofRole: number;
}

/** Memory used by the queues of a role. */
interface RoleMemory {
  readonly name: string;
  queues: number;
  /** Number of queues that are not empty. */
  active: number;
  held: number;
}

/** Memory used by one queue: its account in the {@link ByteBudget}. */
export interface QueueMemory {
  readonly role: RoleMemory;
  usedBytes: number;
}

/**
 * Memory that a role may hold, if it holds `held` bytes now and `left` bytes of the limit are free: everything except
 * the other roles' parts of the last quarter, but at least its own part.
 */
export function roleMayHold(limitBytes: number, roles: number, held: number, left: number): number {
  const part = limitBytes / bufferReserveDivisor / roles;
  return Math.max(held + left - part * (roles - 1), Math.min(part, held + left));
}

/** Memory limit of all queues of a process, and the memory in use. */
export class ByteBudget {
  #taken = 0;
  readonly #roles = new Map<string, RoleMemory>();
  /** Holders of each message that is in several queues. */
  readonly #shared = new Map<InboundMessage, QueueMemory[]>();

  readonly limitBytes: number;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  /** Bytes in use. */
  get usedBytes(): number {
    return this.#taken;
  }

  /** True if so much is in use that messages should be spilled to the table. */
  get isCrowded(): boolean {
    return this.#taken > this.limitBytes / spillDivisor;
  }

  /** Adds a queue to the budget. @param name role that its function runs as */
  addQueue(name: string): QueueMemory {
    let role = this.#roles.get(name);
    if (role === undefined) {
      role = { name, queues: 0, active: 0, held: 0 };
      this.#roles.set(name, role);
    }
    role.queues += 1;
    return { role, usedBytes: 0 };
  }

  /** Removes a queue, which must be empty, from the budget. */
  removeQueue({ role }: QueueMemory): void {
    role.queues -= 1;
    if (role.queues === 0) this.#roles.delete(role.name);
  }

  /**
   * Reserves memory for a message. Returns false if there is no room. A single message always fits, whatever its size.
   */
  reserve(queue: QueueMemory, message: InboundMessage, { holders = [], isKept = false }: Admission = {}): boolean {
    const bytes = memoryOf(message);
    const wanted: Demand = {
      bytes,
      inAll: holders.length > 0 ? 0 : bytes,
      ofRole: holders.some(({ role }) => role === queue.role) ? 0 : bytes,
    };
    const isAlone = this.#taken + wanted.inAll === bytes;
    if (!isKept && !isAlone && !this.#hasRoom(queue, wanted)) return false;
    this.#taken += wanted.inAll;
    queue.role.held += wanted.ofRole;
    if (queue.usedBytes === 0) queue.role.active += 1;
    queue.usedBytes += bytes;
    if (holders.push(queue) === 2) this.#shared.set(message, holders);
    return true;
  }

  /** Releases the memory of a message that the queue has finished. */
  release(queue: QueueMemory, message: InboundMessage): void {
    const bytes = memoryOf(message);
    queue.usedBytes -= bytes;
    if (queue.usedBytes === 0) queue.role.active -= 1;
    const holders = this.#shared.get(message);
    if (holders === undefined) {
      this.#taken -= bytes;
      queue.role.held -= bytes;
      return;
    }
    holders.splice(holders.indexOf(queue), 1);
    if (holders.length === 1) this.#shared.delete(message);
    if (!holders.some(({ role }) => role === queue.role)) queue.role.held -= bytes;
  }

  #hasRoom({ role, usedBytes }: QueueMemory, { bytes, inAll, ofRole }: Demand): boolean {
    const left = this.limitBytes - this.#taken - inAll;
    if (left < 0) return false;
    const held = role.held + ofRole;
    const mayHold = roleMayHold(this.limitBytes, this.#roles.size, held, left);
    if (held > mayHold) return false;
    const active = role.active + (usedBytes === 0 ? 1 : 0);
    const hasIdle = role.queues > active;
    const parts = active + (hasIdle ? 1 : 0);
    const partOfQueue = mayHold / bufferReserveDivisor / parts;
    if (held <= mayHold - partOfQueue * (parts - 1)) return true;
    // All empty queues share one part: each leaves as much of it to the others as it takes.
    return usedBytes + bytes <= Math.min(partOfQueue, hasIdle ? mayHold - held : partOfQueue);
  }
}

/**
 * Counts of messages that were discarded for lack of memory, by subject. Subjects come from outside, so the number of
 * counted subjects is limited.
 */
export class Discards {
  #sum = 0;
  #others = 0;
  readonly #counts = new Map<string, number>();

  readonly #maxSubjects: number;

  constructor(maxSubjects: number) {
    this.#maxSubjects = maxSubjects;
  }

  /** Count of all subjects; always exact. */
  get total(): number {
    return this.#sum;
  }

  /** Counts of the first `maxSubjects` subjects. */
  get bySubject(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  /** Count of all other subjects. */
  get other(): number {
    return this.#others;
  }

  add(subject: string): void {
    this.#sum += 1;
    const count = this.#counts.get(subject);
    if (count !== undefined) this.#counts.set(subject, count + 1);
    else if (this.#counts.size < this.#maxSubjects) this.#counts.set(subject, 1);
    else this.#others += 1;
  }
}
