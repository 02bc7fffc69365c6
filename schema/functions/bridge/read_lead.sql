BEGIN
  SELECT o.epoch, o.owner, o.beat, o.state INTO epoch, owner, beat, state FROM hawser_data.owners AS o WHERE o.what = 'serve';
END
