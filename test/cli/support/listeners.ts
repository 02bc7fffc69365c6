/**
 * `hawser listen` in tests that share a database: each has a topic of its own, and a sender named after it.
 */
import { hostname } from "node:os";
import { afterAll, beforeAll, beforeEach } from "vitest";
import { PeerWorld } from "../../peer/support/world.js";
import { eventually } from "../../support/eventually.js";

/** Topic of a test, and what the store has of the one that listens to it. */
export class OwnTopic {
  readonly world: PeerWorld;
  readonly #round: number;

  constructor(world: PeerWorld, round: number) {
    this.world = world;
    this.#round = round;
  }

  get topic(): string {
    return `orders${this.#round}`;
  }

  /** Name of a peer to send from. */
  get shopName(): string {
    return `shop-${this.#round}`;
  }

  get databaseUrl(): string {
    return this.world.url;
  }

  /** The name that `hawser listen` takes if it is given none. */
  get defaultName(): string {
    return `listen-${hostname()}-${this.topic}`;
  }

  /** Resolves when somebody listens. */
  listens(): Promise<void> {
    return eventually("it listens", async () => {
      return (
        (await this.world.query("SELECT FROM hawser_peer_data.listeners WHERE topic = $1", [this.topic])).length === 1
      );
    });
  }

  /** Messages that wait for the default name, in its channels and in the queue. */
  async pending(): Promise<number> {
    const [row] = await this.world.query<{ count: number }>(
      `WITH own AS (SELECT m.channel_id FROM hawser_peer_data.channels AS m WHERE m.listener_name = $1)
       SELECT (
           SELECT coalesce(sum(least(s.messages, s.number - c.number)), 0)
             FROM own JOIN hawser_peer_data.stored_messages AS s USING (channel_id) JOIN hawser_peer_data.cursors AS c USING (channel_id)
            WHERE (s.epoch, s.number) > (c.epoch, c.number)
         )::integer + (SELECT count(*) FROM own JOIN hawser_data.queue USING (channel_id))::integer AS count`,
      [this.defaultName],
    );
    return row!.count;
  }

  /** Whether the default name was given back in good order. */
  async endedClean(): Promise<boolean> {
    const [peer] = await this.world.query<{ clean: boolean }>(
      "SELECT clean FROM hawser_peer_data.peers WHERE name = $1",
      [this.defaultName],
    );
    return peer!.clean;
  }
}

/** A database for the tests of a file, and a topic for each of them: `own()` is that of the test that runs. */
export function ownTopics(): () => OwnTopic {
  const world = new PeerWorld();
  let round = 0;
  beforeAll(() => world.open({ nats: false }));
  afterAll(() => world[Symbol.asyncDispose]());
  beforeEach(() => {
    round += 1;
  });
  return () => new OwnTopic(world, round);
}
