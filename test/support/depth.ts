/**
 * Number of random inputs of a test: with `npm test` a twentieth of that with `npm run test:all`.
 *
 * @param count how many `npm run test:all` tries
 */
export function atDepth(count: number): number {
  return Math.max(1, Math.round(count * Number(process.env["HAWSER_TEST_DEPTH"] ?? 1)));
}
