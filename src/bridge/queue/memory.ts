/**
 * The memory that all queues of a process share, counted as {@link memoryOf} says. A message that several queues have is counted
 * once, until the last of them has done it.
 *
 * A queue that gets more than its function can do would take all memory, and the others would lose messages. So the last
 * quarter is divided among the roles as which functions run, also those that use nothing: how many subscriptions a role has
 * does not matter to the others. Of what a role may use, the last quarter is divided among its queues that use something, with
 * one more part for all that use nothing. A queue that is alone may use everything.
 */
import { bridgeConstants } from "../../../generated/ts/settings/nats.js";
import { type InboundMessage, memoryOf } from "../message.js";

const { bufferReserveDivisor, spillDivisor } = bridgeConstants;

/** How a message comes to a queue. */
export interface Admission {
  /** Queues that have the same message, and share its memory: for each that takes it, it is added. */
  readonly holders?: QueueMemory[] | undefined;
  /** It was kept until now, within the limit, and only changes its place. */
  readonly isKept?: boolean;
}

/** What a message adds to what is taken, if it is taken. */
export interface Wanted {
  readonly bytes: number;
  readonly inAll: number;
  readonly ofRole: number;
}

/** What the queues of a role have taken. */
interface RoleMemory {
  readonly name: string;
  queues: number;
  /** Those that have something. */
  active: number;
  held: number;
}

/** What a queue has taken. */
export class QueueMemory {
  #taken = 0;

  readonly #budget: ByteBudget;
  readonly role: RoleMemory;

  constructor(budget: ByteBudget, role: RoleMemory) {
    this.#budget = budget;
    this.role = role;
  }

  get usedBytes(): number {
    return this.#taken;
  }

  /** Takes the memory of a message if there is room. One message always fits, so that none is too large for ever. */
  take(message: InboundMessage, admission: Admission = {}): boolean {
    const bytes = memoryOf(message);
    if (!this.#budget.take(this, message, bytes, admission)) return false;
    if (this.#taken === 0) this.role.active += 1;
    this.#taken += bytes;
    return true;
  }

  /** The queue has done it. */
  give(message: InboundMessage): void {
    const bytes = memoryOf(message);
    this.#budget.give(this, message, bytes);
    this.#taken -= bytes;
    if (this.#taken === 0) this.role.active -= 1;
  }

  /** The queue has given all, and takes no part any more. */
  leave(): void {
    this.#budget.leave(this);
  }
}

/**
 * How much a role may hold that holds so much now, of a limit of which so much is left: all but the parts of the others, of
 * the last quarter; or its own part.
 */
export function roleMayHold(limitBytes: number, roles: number, held: number, left: number): number {
  const part = limitBytes / bufferReserveDivisor / roles;
  return Math.max(held + left - part * (roles - 1), Math.min(part, held + left));
}

export class ByteBudget {
  #taken = 0;
  readonly #roles = new Map<string, RoleMemory>();
  /** The holders of each message that more than one queue has. */
  readonly #shared = new Map<InboundMessage, QueueMemory[]>();

  readonly limitBytes: number;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  /** What is taken now. */
  get usedBytes(): number {
    return this.#taken;
  }

  /** So much is taken that messages are to be written to the table, if they can be. */
  get isCrowded(): boolean {
    return this.#taken > this.limitBytes / spillDivisor;
  }

  /** Another queue takes part, until it leaves. @param name of the role as which its function runs */
  join(name: string): QueueMemory {
    let role = this.#roles.get(name);
    if (role === undefined) {
      role = { name, queues: 0, active: 0, held: 0 };
      this.#roles.set(name, role);
    }
    role.queues += 1;
    return new QueueMemory(this, role);
  }

  leave({ role }: QueueMemory): void {
    role.queues -= 1;
    if (role.queues === 0) this.#roles.delete(role.name);
  }

  take(
    queue: QueueMemory,
    message: InboundMessage,
    bytes: number,
    { holders = [], isKept = false }: Admission,
  ): boolean {
    const wanted: Wanted = {
      bytes,
      inAll: holders.length > 0 ? 0 : bytes,
      ofRole: holders.some(({ role }) => role === queue.role) ? 0 : bytes,
    };
    const isAlone = this.#taken + wanted.inAll === bytes;
    if (!isKept && !isAlone && !this.hasRoom(queue, wanted)) return false;
    this.#taken += wanted.inAll;
    queue.role.held += wanted.ofRole;
    if (holders.push(queue) === 2) this.#shared.set(message, holders);
    return true;
  }

  give(queue: QueueMemory, message: InboundMessage, bytes: number): void {
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

  protected hasRoom({ role, usedBytes }: QueueMemory, { bytes, inAll, ofRole }: Wanted): boolean {
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
    // Of the part for all that have nothing, each leaves as much as it takes.
    return usedBytes + bytes <= Math.min(partOfQueue, hasIdle ? mayHold - held : partOfQueue);
  }
}

/**
 * How many messages were discarded because there was no room, by subject. Subjects come from outside, so that not any
 * number of them is told apart.
 */
export class Discards {
  #sum = 0;
  #others = 0;
  readonly #counts = new Map<string, number>();

  readonly #maxSubjects: number;

  constructor(maxSubjects: number) {
    this.#maxSubjects = maxSubjects;
  }

  /** Exact, whatever the number of subjects. */
  get total(): number {
    return this.#sum;
  }

  /** By subject, for the first `maxSubjects` of them. */
  get bySubject(): ReadonlyMap<string, number> {
    return this.#counts;
  }

  /** Of all subjects beyond these. */
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
