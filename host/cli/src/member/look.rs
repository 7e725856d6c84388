//! Looking at the members: as the leader knows them, by number or name, as a table.

use std::time::Duration;

use maitred_client::{Client, Error};
use maitred_protocol::{MemberRecord, MemberRole, Members, Rejection};

use super::follow::Phase;
use crate::failure::{Exit, Failure};
use crate::json as shape;
use crate::out::{short, table};

/// The members as the leader knows them, who alone knows how far each is; as any host does when the
/// leader cannot be asked within a second or so. A client that has just connected may know one host.
pub(crate) async fn members(client: &Client) -> Result<Members, Error> {
    let mut members = client.members().await?;
    for _ in 0..20 {
        let told = members.items.iter().any(|member| member.progress.is_some());
        if told || members.leader.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        members = client.members().await?;
    }
    Ok(members)
}

pub(super) fn rows(members: &Members) -> String {
    let header = [
        "HOST", "NAME", "ROLE", "ADDRESS", "LOG", "BEHIND", "HEARD", "PHASE",
    ];
    let row = |member: &MemberRecord| {
        let leads = members.leader == Some(member.host);
        let matched = match (leads, member.progress) {
            (true, _) => Some(members.commit),
            (false, progress) => progress.and_then(shape::has),
        };
        let known = |number: Option<u64>| number.map_or("?".to_owned(), |n| n.to_string());
        vec![
            member.host.to_string(),
            member.name.to_string(),
            role(member, members.leader),
            member.address.clone(),
            known(matched),
            known(matched.map(|index| members.commit.saturating_sub(index))),
            heard(member, members.leader),
            match Phase::of(members, member.host) {
                Phase::Votes => String::new(),
                phase => phase.text(),
            },
        ]
    };
    let mut text = table(&header, members.items.iter().map(row));
    if members.leader.is_none() {
        text += "\n\nnobody leads: `maitred status` says why";
    }
    text
}

/// Its role for people, `leader` before all others.
pub(crate) fn role(member: &MemberRecord, leader: Option<u64>) -> String {
    match (leader == Some(member.host), member.replaces) {
        (true, _) => "leader".to_owned(),
        (false, None) => shape::role(member.role).to_owned(),
        (false, Some(old)) => format!("{}, for host {old}", shape::role(member.role)),
    }
}

/// When the leader last heard of it.
pub(crate) fn heard(member: &MemberRecord, leader: Option<u64>) -> String {
    match (member.progress, leader == Some(member.host)) {
        (_, true) | (None, _) => "-".to_owned(),
        (Some(progress), false) => progress.heard_ms.map_or("never".to_owned(), |millis| {
            format!("{} ago", short(Duration::from_millis(millis.into())))
        }),
    }
}

/// The member of that number or name. While a host is replaced two have its name: then its number must
/// be said.
pub(super) fn find<'a>(members: &'a Members, named: &str) -> Result<&'a MemberRecord, Failure> {
    let number: Option<u64> = named.parse().ok();
    // A name may look like a number: numbers come first, since `ls` shows both.
    let by_number = members.items.iter().find(|one| Some(one.host) == number);
    if let Some(found) = by_number {
        return Ok(found);
    }
    let by_name = |one: &&MemberRecord| one.name.as_str() == named;
    let found: Vec<&MemberRecord> = members.items.iter().filter(by_name).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let message = format!("{named:?} is no member of the cluster");
            let help = "see who is with `maitred member ls`";
            Err(Failure::new(Exit::NotFound, "not_found", message, help))
        }
        _ => Err(ambiguous(named, &found)),
    }
}

/// The member whose place is meant: of two with one name the old one, since the new one only stands
/// for it.
pub(super) fn find_place<'a>(
    members: &'a Members,
    named: &str,
) -> Result<&'a MemberRecord, Failure> {
    let named_so = |one: &&MemberRecord| one.name.as_str() == named && one.replaces.is_none();
    let mut old = members.items.iter().filter(named_so);
    match (find(members, named), old.next()) {
        (Err(failure), Some(old)) if failure.code == "ambiguous" => Ok(old),
        (found, _) => found,
    }
}

/// A refused change, with what is to be done about it.
pub(super) fn refused(error: Error, help: &str) -> Failure {
    match &error {
        Error::Rejected(Rejection::Conflict(_)) => {
            Failure::advised(Exit::Conflict, "conflict", &error.to_string(), help)
        }
        _ => error.into(),
    }
}

fn ambiguous(named: &str, found: &[&MemberRecord]) -> Failure {
    let each = found.iter().map(|one| match one.replaces {
        Some(old) => format!("host {}, which is to replace host {old}", one.host),
        None => format!("host {}", one.host),
    });
    let each: Vec<String> = each.collect();
    let message = format!("{named} can be {}", each.join(", or "));
    let help = "say the number instead of the name; see `maitred member ls`";
    Failure::new(Exit::Conflict, "ambiguous", message, help)
}

/// The line that starts a host which is awaited.
pub(super) fn serve_line(members: &Members, member: &MemberRecord) -> String {
    let seeds = members.items.iter();
    let seeds = seeds.filter(|one| {
        let other = one.host != member.host && Some(one.host) != member.replaces;
        other && one.role == MemberRole::Voter
    });
    let seeds: Vec<&str> = seeds.map(|one| one.address.as_str()).collect();
    let port = member
        .address
        .rsplit_once(':')
        .map_or("7600", |(_, port)| port);
    format!(
        "maitred serve --join {} --name {} --listen 0.0.0.0:{port} --advertise {} --data-dir data --ca ca.pem --cert host.pem --key host.key",
        seeds.join(","),
        member.name,
        member.address,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use maitred_protocol::HostName;

    fn member(host: u64, name: &str, replaces: Option<u64>) -> MemberRecord {
        MemberRecord {
            host,
            name: HostName::new(name).unwrap(),
            address: format!("10.0.0.{host}:7600"),
            role: MemberRole::Voter,
            replaces,
            arrived: true,
            progress: None,
        }
    }

    fn three() -> Members {
        Members {
            items: vec![
                member(1, "a", None),
                member(4, "1", None),
                member(9, "c", None),
            ],
            leader: Some(1),
            term: 2,
            commit: 10,
            level: 2,
        }
    }

    #[test]
    fn members_are_found_by_number_before_name() {
        let members = three();
        assert_eq!(find(&members, "1").unwrap().host, 1);
        assert_eq!(find(&members, "c").unwrap().host, 9);
        assert_eq!(find(&members, "7").unwrap_err().exit, Exit::NotFound);
    }

    #[test]
    fn a_name_that_two_hosts_have_is_not_guessed_at() {
        let mut members = three();
        members.items.push(member(12, "c", Some(9)));
        let failure = find(&members, "c").unwrap_err();
        assert_eq!((failure.exit, failure.code), (Exit::Conflict, "ambiguous"));
        assert_eq!(
            failure.message,
            "c can be host 9, or host 12, which is to replace host 9"
        );
        assert_eq!(find(&members, "12").unwrap().host, 12);
        assert_eq!(find_place(&members, "c").unwrap().host, 9);
        assert_eq!(find_place(&members, "a").unwrap().host, 1);
        assert!(find_place(&members, "").is_err());
        let line = serve_line(&members, &members.items[3]);
        assert!(
            line.contains("--join 10.0.0.1:7600,10.0.0.4:7600 --name c --listen 0.0.0.0:7600"),
            "{line}"
        );
    }
}
