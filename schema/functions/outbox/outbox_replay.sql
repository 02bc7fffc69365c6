#variable_conflict use_column
BEGIN
  SELECT p.replayed INTO replayed FROM hawser.replay_page(since, subject, until, core, 0, NULL, NULL) AS p;
END
