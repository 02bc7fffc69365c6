/**
 * The patterns by name: of each, its participants and the parts they have.
 */
import { parts as manyToMany } from "./many-to-many.js";
import { parts as oneToMany } from "./one-to-many.js";
import { parts as oneToOne } from "./one-to-one.js";
import { parts as oneToOneForMany } from "./one-to-one-for-many.js";
import { parts as producerConsumer } from "./producer-consumer.js";

export const patterns = {
  "one-to-one": oneToOne,
  "one-to-one-for-many": oneToOneForMany,
  "one-to-many": oneToMany,
  "many-to-many": manyToMany,
  "producer-consumer": producerConsumer,
};
