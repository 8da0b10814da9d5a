// Start of an audit's page.

setupRows();
startPage();
