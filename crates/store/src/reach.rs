//! What of all rows a caller sees, as a condition.

use crate::sql::Query;
use tintype_model::access::Reach;

/// Adds the condition that `column`, an account, is one that the caller sees.
pub(crate) fn push(query: &mut Query, column: &str, reach: Reach) {
    match reach {
        Reach::All => {}
        Reach::Account(account) => {
            query.push(format!(" AND {column} = ")).push_bind(account.to_string());
        }
        Reach::Domain(domain) => {
            query.push(format!(
                " AND {column} IN (SELECT account.id FROM account
                  JOIN domain ON domain.id = account.domain
                  JOIN domain AS top ON substr(domain.lineage, 1, length(top.lineage)) = top.lineage
                  WHERE top.id = "
            ));
            query.push_bind(domain.to_string()).push(")");
        }
    }
}
