# Hostile and random input to every function of the extension: no crash, no internal error.
# `make fuzz CALLS=n SEED=n` makes more calls; a seed repeats a run.
use strict;
use warnings;
use FindBin;
use lib $FindBin::RealBin;
use List::Util qw(min);
use ErosTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $calls = $ENV{EROS_FUZZ_CALLS} || 10000;
my $seed = $ENV{EROS_FUZZ_SEED} || int(rand(1_000_000)) + 1;
diag("fuzz: $calls calls with seed $seed");

# `make fuzz` shows how far it is
my $progress;
open $progress, '>&=', $ENV{EROS_FUZZ_PROGRESS} if $ENV{EROS_FUZZ_PROGRESS};
$progress->autoflush(1) if defined $progress;

# Workers and sweeps go on meanwhile; the failing handler is not of interest.
my $node = eros_node('fuzz', "log_min_messages = fatal\nlog_min_error_statement = panic\nautovacuum = off\n");
my $started = value($node, 'postgres', 'SELECT pg_postmaster_start_time()');

# A database that takes any byte sees other texts than one in UTF8.
my %part = (postgres => $calls - int($calls / 4), bytes => int($calls / 4));
$node->safe_psql('postgres', q{CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'});
$node->safe_psql('postgres', 'CREATE ROLE fuzz_role');
for my $db ('postgres', 'bytes')
{
	my ($done, $errors) = (0, '');

	create_eros($node, $db);
	$node->safe_psql($db, slurp_file("$FindBin::RealBin/../fuzz/fuzz.sql"));
	$node->safe_psql($db, q{INSERT INTO fuzz.value VALUES ('text', 'E''\xff\xfe''')}) if $db eq 'bytes';
	while ($done < $part{$db} && $errors eq '')
	{
		my $n = min($part{$db} - $done, 10000);

		$node->psql(
			$db, "SET client_min_messages = error; SET statement_timeout = '1h'; CALL fuzz.run($n, 1.0 / ($seed + $done))",
			timeout => 3600, stderr => \$errors);
		$done += $n;
		print $progress "$done of $part{$db} calls in database $db\n" if defined $progress;
	}
	is($errors, '', "the calls in database $db come to their end");
	is(value($node, $db, q{SELECT string_agg(format('%s %s: %s', sqlstate, message, statement), E'\n') FROM fuzz.finding}),
		'', 'none of them is an internal error');
	is(value($node, $db, 'SELECT sum(calls) FROM fuzz.outcome'), $part{$db}, 'all calls were made');
	note(value($node, $db,
		q{SELECT function, string_agg(sqlstate || ': ' || calls, ', ' ORDER BY sqlstate) FROM fuzz.outcome GROUP BY 1 ORDER BY 1}));
}
is(value($node, 'postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server is the same');
unlike(slurp_file($node->logfile), qr/terminated by signal|TRAP:|PANIC/, 'no process has crashed');
$node->safe_psql('postgres', 'SELECT eros.resume()');
polls_to($node, 'postgres', running(), 'EROS runs');
$node->stop;
done_testing();
