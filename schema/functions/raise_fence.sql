BEGIN
  held := hawser.raise_owner('peer:' || p_name, p_epoch);
END
