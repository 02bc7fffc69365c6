-- Peers of the step before hold their names by advisory locks, and this step gives the names to others. Each of their writes
-- reads this table in its own transaction: those under way are waited for, and later ones find another epoch.
LOCK TABLE hawser.peers IN ACCESS EXCLUSIVE MODE;
UPDATE hawser.peers AS p
   SET epoch = greatest(p.epoch + 1, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint), token = NULL;
